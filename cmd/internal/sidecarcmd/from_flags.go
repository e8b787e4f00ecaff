package sidecarcmd

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/sidecar"
	"github.com/lanyard-mtls/lanyard/sidecar/accept"
	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/metrics"
	"github.com/lanyard-mtls/lanyard/sidecar/policy"
	"github.com/lanyard-mtls/lanyard/sidecar/proxyproto"
	"github.com/lanyard-mtls/lanyard/sidecar/record"
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
		Rego: policy.Rego{Path: o.policyPath, Query: o.policyQuery}, Wide: true,
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

// config gives the configuration that the flags describe, and what is worth a line in the log. The error is of single flags: what
// does not go together is for the Config's own validation.
func (o *options) config(mode sidecar.Mode) (sidecar.Config, []string, error) {
	id, notes, errs := o.identity(mode)
	t := sidecar.Tunnel{
		Mode: mode, Listen: o.listen, Target: o.target, UnsafeListen: o.unsafeListen, UnsafeTarget: o.unsafeTarget, Identity: id,
		Policy: o.policy(mode, id), ServerName: o.serverName, Via: o.proxy, TargetStatus: o.targetStatus, ProxyProtocol: o.proxyMode(),
		AcceptProxyProtocol: o.acceptProxy, ALPN: o.alpn, NoResumption: o.noResumption,
		ConnectTimeout: o.connect, CloseTimeout: orNone(o.closing), IdleTimeout: o.idle, MaxAge: o.maxAge,
		Limits:    accept.Limits{Connections: int(o.maxConns), PerPeer: int(o.perPeer), Handshakes: noLimit(int(o.handshakes))},
		KeepAlive: keepAlive(o.keepAlive), UserTimeout: o.userTimeout, SocketMode: fs.FileMode(o.socketMode), ReusePort: o.reusePort, SkipResolve: o.skipResolve,
	}
	var more []error
	t.CipherSuites, more = cipherSuites(strings.Split(o.cipherSuites, ","), o.unsafeCiphers)
	errs = append(errs, more...)
	version, err := tlsVersion(o.maxTLS)
	t.MaxTLSVersion = version
	errs = append(append(errs, err), o.checks()...)
	quiet, err := record.ParseQuiet(o.quiet.values)
	if err != nil {
		errs = append(errs, setting.Errorf("quiet", "", "%w", err))
	}
	cfg := sidecar.Config{
		Tunnels: []sidecar.Tunnel{t}, Status: sidecar.Status{Listen: o.status, PProf: o.pprof, Shutdown: o.shutdownEndpoint},
		Metrics:         metrics.Config{Prefix: o.metricsPrefix, Graphite: o.graphite, URL: o.metricsURL, Interval: o.metricsInterval},
		ShutdownTimeout: atOnce(o.shutdown), DrainIdle: orNone(o.drainIdle), Quiet: quiet, Revision: cli.Version(),
		Sandbox: sidecar.Sandbox{Enabled: !o.disableLandlock}, IdentityTimeout: o.workloadTimeout,
	}
	if o.logs.File != "" {
		cfg.Sandbox.WriteDirs = append(cfg.Sandbox.WriteDirs, filepath.Dir(o.logs.File))
	}
	keepACME(&cfg)
	told := errors.Join(errs...)
	return cfg, notes, errors.Join(told, without(cfg.Validate(), told))
}

func (o *options) proxyMode() proxyproto.Mode {
	if o.proxyProtocol {
		return proxyproto.Conn
	}
	return proxyproto.Mode(o.proxyProtocolMode.Value)
}

// orNone gives what a Config has for 0, which is none or at once in a flag and the default there.
func orNone(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}

// atOnce is orNone for what can't be negative.
func atOnce(d time.Duration) time.Duration {
	if d == 0 {
		return 1
	}
	return d
}

// noLimit gives what a Config has for no limit of handshakes, which is 0 in a flag and the default there.
func noLimit(n int) int {
	if n == 0 {
		return math.MaxInt32
	}
	return n
}

// keepAliveProbes is how many unanswered probes make a peer gone.
const keepAliveProbes = 9

// keepAlive gives probes every d; 0 is none.
func keepAlive(d time.Duration) net.KeepAliveConfig {
	if d == 0 {
		return net.KeepAliveConfig{Count: -1} // not the zero value, which is the default
	}
	return net.KeepAliveConfig{Enable: true, Idle: d, Interval: d, Count: keepAliveProbes}
}

// checks gives the errors that no part of a Config can have: two flags for one thing, and what a Config takes for a default.
func (o *options) checks() []error {
	var errs []error
	if o.connect == 0 {
		errs = append(errs, setting.Errorf("connect_timeout", shortDuration(o.connect), "must be more than 0"))
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
