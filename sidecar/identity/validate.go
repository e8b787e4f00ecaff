package identity

import (
	"errors"
	"maps"
	"net/url"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/workload"
	"github.com/lanyard-mtls/lanyard/sidecar/setting"
)

// Validate returns everything that is wrong with c: setting.Errors, joined. It does no I/O. A Source as a whole has the key
// "identity", ACME's and PKCS#11's settings those of their flags, such as "auto_acme_cert".
func (c Config) Validate() error {
	return errors.Join(c.validateSource(), c.validateWorkloadAPI(), c.validateFiles(), c.validateBundles(), c.validatePKCS11(), c.validateACME())
}

// sources are the settings, of those that name a source, that are set.
func (c Config) sources() []*setting.Error {
	var set []*setting.Error
	if c.WorkloadAPI != "" {
		set = append(set, &setting.Error{Key: "workload_api", Value: c.WorkloadAPI})
	}
	if c.Keystore != "" {
		set = append(set, &setting.Error{Key: "keystore", Value: c.Keystore})
	}
	switch {
	case c.Cert != "":
		set = append(set, &setting.Error{Key: "cert", Value: c.Cert})
	case c.Key != "":
		set = append(set, &setting.Error{Key: "key", Value: c.Key})
	}
	if c.ACME != (ACME{}) {
		set = append(set, &setting.Error{Key: "auto_acme_cert", Value: c.ACME.FQDN})
	}
	return set
}

func (c Config) validateSource() error {
	set := c.sources()
	switch {
	case c.None:
		var errs []error
		for _, s := range set {
			if s.Key != "workload_api" { // which then only verifies
				errs = append(errs, setting.Errorf(s.Key, s.Value, "no certificate is to be shown: drop it, or let one be shown"))
			}
		}
		return errors.Join(errs...)
	case len(set) == 0:
		return setting.Errorf("identity", "", "there is no source of certificates: name a Workload API, a certificate and its key, or a keystore")
	case len(set) > 1:
		return setting.Errorf(set[1].Key, set[1].Value, "there is another source of certificates, %s %s: keep one", set[0].Key, set[0].Value)
	}
	return nil
}

func (c Config) validateWorkloadAPI() error {
	if c.WorkloadAPI == "" {
		var errs []error
		if !c.SPIFFEID.IsZero() {
			errs = append(errs, setting.Errorf("spiffe_id", c.SPIFFEID.String(), "picks one of several SVIDs of a Workload API, and there is none: drop it"))
		}
		if c.Hint != "" {
			errs = append(errs, setting.Errorf("hint", c.Hint, "picks one of several SVIDs of a Workload API, and there is none: drop it"))
		}
		return errors.Join(errs...)
	}
	var errs []error
	if _, err := workload.ParseAddr(c.WorkloadAPI); err != nil {
		errs = append(errs, addrError(c.WorkloadAPI, err))
	}
	if !c.SPIFFEID.IsZero() && c.SPIFFEID.Path() == "" {
		errs = append(errs, setting.Errorf("spiffe_id", c.SPIFFEID.String(), "names a trust domain, not a workload: add its path"))
	}
	return errors.Join(errs...)
}

func addrError(addr string, err error) error {
	if addrErr, ok := errors.AsType[*workload.AddrError](err); ok {
		return setting.Errorf("workload_api", addr, "%s", addrErr.Problem)
	}
	return setting.Errorf("workload_api", addr, "%w", err)
}

func (c Config) validateFiles() error {
	switch {
	case c.Cert == "" && c.Key != "":
		return setting.Errorf("key", c.Key, "a private key alone is no identity: name its certificate too")
	case c.Cert != "" && c.Key == "" && c.PKCS11 == (PKCS11{}):
		return setting.Errorf("cert", c.Cert, "a certificate alone is no identity: name its private key too")
	}
	return nil
}

func (c Config) validateBundles() error {
	if len(c.TrustBundles) == 0 {
		return nil
	}
	var errs []error
	seen := map[spiffeid.TrustDomain]bool{}
	for _, name := range slices.Sorted(maps.Keys(c.TrustBundles)) {
		td, err := spiffeid.TrustDomainFromString(name)
		switch {
		case err != nil:
			errs = append(errs, setting.Errorf("trust_bundle", name, "not a trust domain's name: %w", err))
		case seen[td]:
			errs = append(errs, setting.Errorf("trust_bundle", name, "the trust domain has another bundle: put all authorities into one file"))
		case c.TrustBundles[name] == "":
			errs = append(errs, setting.Errorf("trust_bundle", name, "names no file: give it one with PEM certificates or a SPIFFE bundle"))
		}
		seen[td] = true
	}
	switch {
	case c.WorkloadAPI != "":
		errs = append(errs, setting.Errorf("trust_bundle", "", "the Workload API brings the bundles: drop it"))
	case c.ACME != (ACME{}):
		errs = append(errs, setting.Errorf("trust_bundle", "", "goes with X.509-SVIDs, which ACME has none of: use files, or drop it"))
	case c.CACert != "":
		errs = append(errs, setting.Errorf("ca_cert", c.CACert, "the trust bundles have the authorities: drop it"))
	}
	return errors.Join(errs...)
}

func (c Config) validatePKCS11() error {
	p := c.PKCS11
	switch {
	case p == (PKCS11{}):
		return nil
	case p.Module == "":
		return setting.Errorf("pkcs11_module", "", "a token or PIN needs a module: name the shared library, or drop them")
	case p.TokenLabel == "":
		return setting.Errorf("pkcs11_token_label", "", "the module may have several tokens: give the label of the one with the key")
	case c.Cert == "" && c.Keystore == "":
		return setting.Errorf("pkcs11_module", p.Module, "holds the private key only: name its certificate too")
	case c.Key != "":
		return setting.Errorf("key", c.Key, "the private key is in %s: keep one", p.Module)
	}
	return nil
}

func (c Config) validateACME() error {
	a := c.ACME
	if a == (ACME{}) {
		return nil
	}
	var errs []error
	if a.FQDN == "" {
		errs = append(errs, setting.Errorf("auto_acme_cert", "", "names no host: give the name that the certificate is for"))
	}
	if a.Email == "" {
		errs = append(errs, setting.Errorf("auto_acme_email", "", "the authority needs an address to write to: give one"))
	}
	if !a.AgreeToTOS {
		errs = append(errs, setting.Errorf("auto_acme_agree_to_tos", "", "the authority's terms of service have to be agreed to: read them, then set it"))
	}
	errs = append(errs, validateDirectory("auto_acme_ca", a.CA), validateDirectory("auto_acme_testca", a.TestCA))
	if a.RenewCheckInterval < 0 {
		errs = append(errs, setting.Errorf("auto_acme_renew_check_interval", a.RenewCheckInterval.String(), "must not be negative"))
	}
	if a.AltTLSALPNPort < 0 || a.AltTLSALPNPort > 65535 {
		errs = append(errs, setting.Errorf("auto_acme_alt_tls_alpn_port", "", "%d is no port: use 1 to 65535", a.AltTLSALPNPort))
	}
	return errors.Join(errs...)
}

func validateDirectory(key, s string) error {
	if s == "" {
		return nil
	}
	if u, err := url.Parse(s); err != nil || u.Scheme != "https" || u.Host == "" {
		return setting.Errorf(key, s, "not the URL of an ACME directory: use https://HOST/PATH")
	}
	return nil
}
