package identity_test

import (
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/setting"
)

func TestValidate(t *testing.T) {
	acme := identity.ACME{FQDN: "a.test", Email: "ops@a.test", AgreeToTOS: true}
	module := identity.PKCS11{Module: "/m.so", TokenLabel: "t"}
	for name, c := range map[string]identity.Config{
		"workload API": {WorkloadAPI: "unix:///a", SPIFFEID: spiffeid.RequireFromString("spiffe://a/b"), Hint: "h"},
		"verify only":  {WorkloadAPI: "unix:///a", None: true},
		"CA ignored":   {WorkloadAPI: "unix:///a", CACert: "ca"},
		"files":        {Cert: "c", Key: "k", CACert: "ca", Watch: true},
		"SVIDs":        {Cert: "c", Key: "k", TrustBundles: map[string]string{"one.test": "f"}},
		"keystore":     {Keystore: "k", StorePass: "p"},
		"module":       {Cert: "c", PKCS11: module},
		"module, PEM":  {Keystore: "k", PKCS11: module},
		"ACME":         {ACME: acme, CACert: "ca"},
		"none":         {None: true},
		"none, SVIDs":  {None: true, TrustBundles: map[string]string{"one.test": "f"}},
	} {
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	bundles := func(pairs ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = pairs[i+1]
		}
		return m
	}
	for _, tt := range []struct {
		cfg  identity.Config
		want string // one error a line
	}{
		{identity.Config{}, "identity: there is no source of certificates"},
		{identity.Config{WorkloadAPI: "unix:///a", Keystore: "k"}, "keystore k: there is another source of certificates, workload_api unix:///a: keep one"},
		{identity.Config{Keystore: "k", Cert: "c", Key: "k"}, "cert c: there is another source of certificates, keystore k: keep one"},
		{identity.Config{Cert: "c"}, "cert c: a certificate alone is no identity: name its private key too"},
		{identity.Config{Key: "k"}, "key k: a private key alone is no identity: name its certificate too"},
		{identity.Config{None: true, Cert: "c", Key: "k"}, "cert c: no certificate is to be shown"},
		{identity.Config{WorkloadAPI: "/a"}, "workload_api /a: has neither scheme unix nor tcp: use unix:///PATH or tcp://IP:PORT"},
		{identity.Config{WorkloadAPI: "unix:///a", SPIFFEID: spiffeid.RequireFromString("spiffe://a")}, "spiffe_id spiffe://a: names a trust domain"},
		{identity.Config{Cert: "c", Key: "k", SPIFFEID: spiffeid.RequireFromString("spiffe://a/b"), Hint: "h"},
			"spiffe_id spiffe://a/b: picks one of several SVIDs\nhint h: picks one of several SVIDs"},
		{identity.Config{Cert: "c", Key: "k", TrustBundles: bundles("A B", "f", "one.test", "", "spiffe://one.test", "f")},
			"trust_bundle A B: not a trust domain's name\ntrust_bundle one.test: names no file\ntrust_bundle spiffe://one.test: the trust domain has another bundle"},
		{identity.Config{Cert: "c", Key: "k", CACert: "ca", TrustBundles: bundles("one.test", "f")}, "ca_cert ca: the trust bundles have the authorities"},
		{identity.Config{WorkloadAPI: "unix:///a", TrustBundles: bundles("one.test", "f")}, "trust_bundle: the Workload API brings the bundles"},
		{identity.Config{ACME: acme, TrustBundles: bundles("one.test", "f")}, "trust_bundle: goes with X.509-SVIDs"},
		{identity.Config{Cert: "c", Key: "k", PKCS11: module}, "key k: the private key is in /m.so: keep one"},
		{identity.Config{None: true, PKCS11: module}, "pkcs11_module /m.so: holds the private key only"},
		{identity.Config{Cert: "c", Key: "k", PKCS11: identity.PKCS11{PIN: "1234"}}, "pkcs11_module: a token or PIN needs a module"},
		{identity.Config{Cert: "c", PKCS11: identity.PKCS11{Module: "/m.so"}}, "pkcs11_token_label: the module may have several tokens"},
		{identity.Config{ACME: identity.ACME{FQDN: "a.test"}}, "auto_acme_email: the authority needs\nauto_acme_agree_to_tos: the authority's terms"},
		{identity.Config{ACME: identity.ACME{Email: "a", AgreeToTOS: true, CA: "ftp://x", TestCA: "https:", RenewCheckInterval: -time.Second, AltTLSALPNPort: 70000}},
			"auto_acme_cert: names no host\nauto_acme_ca ftp://x: not the URL\nauto_acme_testca https:: not the URL\n" +
				"auto_acme_renew_check_interval -1s: must not\nauto_acme_alt_tls_alpn_port: 70000 is no port"},
	} {
		errs := setting.All(tt.cfg.Validate())
		want := strings.Split(tt.want, "\n")
		if len(errs) != len(want) {
			t.Errorf("%v, want %q", errs, want)
			continue
		}
		for i, err := range errs {
			if !strings.HasPrefix(err.Error(), want[i]) || strings.Contains(err.Error(), "1234") {
				t.Errorf("%q, want %q", err, want[i])
			}
			if _, ok := err.(*setting.Error); !ok {
				t.Errorf("%T", err)
			}
		}
	}
}

func TestSourceKey(t *testing.T) {
	base := identity.Config{Cert: "c", Key: "k", TrustBundles: map[string]string{"a": "1", "b": "2"}}
	if same := (identity.Config{Cert: "c", Key: "k", TrustBundles: map[string]string{"b": "2", "a": "1"}}); base.SourceKey() != same.SourceKey() {
		t.Error("equal configurations have different keys")
	}
	seen := map[string]bool{}
	for _, c := range []identity.Config{{}, base, {Cert: "c"}, {Key: "c"}, {Keystore: "c"}, {Keystore: "c", StorePass: "p"}, {CACert: "c"}, {None: true},
		{Watch: true}, {WorkloadAPI: "c"}, {Hint: "c"}, {SPIFFEID: spiffeid.RequireFromString("spiffe://a/b")}, {SPIFFEID: spiffeid.RequireFromString("spiffe://a/c")},
		{PKCS11: identity.PKCS11{PIN: "c"}}, {ACME: identity.ACME{FQDN: "c"}}} {
		if key := c.SourceKey(); key == "" || seen[key] {
			t.Errorf("%+v has the key %q of another", c, key)
		} else {
			seen[key] = true
		}
	}
}
