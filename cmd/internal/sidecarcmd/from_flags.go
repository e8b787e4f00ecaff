package sidecarcmd

import (
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/sidecar"
	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/policy"
	"github.com/lanyard-mtls/lanyard/sidecar/setting"
)

// identity gives the identity that the flags describe, and what is worth a line in the log. Errors are about single flags; what
// does not go together is for Validate.
func (o *options) identity(mode sidecar.Mode) (c identity.Config, notes []string, errs []error) {
	c = identity.Config{
		Keystore: o.keystore, StorePass: o.storePass, Cert: o.cert, Key: o.key, CACert: o.caCert, Hint: o.hint, Watch: o.watch,
		None: mode == sidecar.Client && o.disableAuth,
		ACME: identity.ACME{FQDN: o.acmeFQDN, Email: o.acmeEmail, AgreeToTOS: o.acmeAgree, CA: o.acmeCA, TestCA: o.acmeTestCA,
			RenewCheckInterval: o.acmeInterval, AltTLSALPNPort: o.acmePort},
	}
	if o.cert != "" || o.keystore != "" { // a token alone is no source
		c.PKCS11 = identity.PKCS11{Module: o.pkcs11Module, TokenLabel: o.pkcs11Label, PIN: o.pkcs11PIN}
	}
	if o.spiffeID != "" {
		id, err := spiffeid.FromString(o.spiffeID)
		if err != nil {
			errs = append(errs, setting.Errorf("spiffe_id", o.spiffeID, "no SPIFFE ID: %w", err))
		}
		c.SPIFFEID = id
	}
	for _, s := range o.trustBundles {
		td, file, ok := strings.Cut(s, "=")
		if _, err := spiffeid.TrustDomainFromString(td); !ok || file == "" || err != nil {
			errs = append(errs, setting.Errorf("trust_bundle", s, "give TRUST-DOMAIN=FILE, such as example.org=bundle.pem"))
			continue
		}
		if c.TrustBundles == nil {
			c.TrustBundles = map[string]string{}
		}
		c.TrustBundles[td] = file
	}
	api, note := o.workload()
	if note != "" {
		notes = append(notes, note)
	}
	c.WorkloadAPI = api
	if api != "" && c.CACert != "" {
		notes = append(notes, fmt.Sprintf("--cacert %s is not used: the Workload API brings the bundles that peers are verified with", c.CACert))
		c.CACert = ""
	}
	return c, notes, errs
}

// workload gives the address of the Workload API, if it is the source. That the environment has one is no reason to refuse the
// files that the command line names.
func (o *options) workload() (addr, note string) {
	switch {
	case o.given("use-workload-api") && !o.workloadAPI:
		return "", ""
	case o.workloadAddr != "" && o.from["use-workload-api-addr"] != "" && !o.workloadAPI:
		for _, other := range []struct{ flag, value string }{{"keystore", o.keystore}, {"cert", o.cert}, {"key", o.key}, {"auto-acme-cert", o.acmeFQDN}} {
			if other.value != "" {
				return "", fmt.Sprintf("$SPIFFE_ENDPOINT_SOCKET is not used: --%s %s says where the identity is from", other.flag, other.value)
			}
		}
		return o.workloadAddr, ""
	case o.workloadAddr != "":
		return o.workloadAddr, ""
	case o.workloadAPI:
		return "unix://" + o.env.WorkloadSocket(), ""
	}
	return "", ""
}

// policy gives the rules that the flags describe.
func (o *options) policy(mode sidecar.Mode, id identity.Config) policy.Config {
	c := policy.Config{
		AllowAll: o.allowAll, OwnTrustDomain: o.ownTrustDomain, AllowCNs: o.cns, AllowOUs: o.ous, AllowDNSNames: o.dnsNames, AllowIPs: o.ips,
		AllowURIs: o.uris, AllowTrustDomains: o.trustDomains, DenyURIs: o.denyURIs, Pins: o.pins,
		Rego: policy.Rego{Path: o.policyPath, Query: o.policyQuery},
	}
	if o.policyPath != "" || o.policyQuery != "" {
		c.Rego.Timeout = o.connect
	}
	if mode == sidecar.Server {
		c.DisableAuthentication = o.disableAuth
		return c
	}
	named := len(o.cns)+len(o.ous)+len(o.dnsNames)+len(o.ips)+len(o.uris)+len(o.trustDomains)+len(o.pins) > 0 || c.Rego != policy.Rego{}
	if svid := id.WorkloadAPI != "" || len(id.TrustBundles) > 0; svid && !named {
		c.OwnTrustDomain = true // ghostunnel takes any federated one, too
	}
	return c
}

// checks gives the errors that no part of a Config can have: two flags for one thing, and what a Config takes for a default.
func (o *options) checks() []error {
	var errs []error
	if o.connect <= 0 {
		errs = append(errs, setting.Errorf("connect", shortDuration(o.connect), "must be more than 0"))
	}
	if o.workloadTimeout < 0 {
		errs = append(errs, setting.Errorf("use_workload_api_timeout", o.workloadTimeout.String(), "must not be negative: give 0 to wait for ever"))
	}
	if o.timedReload < 0 {
		errs = append(errs, setting.Errorf("timed_reload", o.timedReload.String(), "must not be negative: give 0 for none"))
	}
	if o.proxyProtocol && o.proxyProtocolMode.Value != "" {
		errs = append(errs, setting.Errorf("proxy_protocol", "", "--proxy-protocol and --proxy-protocol-mode exclude each other: drop one"))
	}
	if o.syslog && o.logs.File != "" {
		errs = append(errs, cli.Usagef("--syslog and --log-file %s exclude each other: drop one", o.logs.File))
	}
	return errs
}
