package sidecarcmd

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/lanyard-mtls/lanyard/internal/cli"
)

// What ghostunnel 1.11 takes, hidden flags and aliases included. Keychain flags are those of other systems' builds.
const (
	ghostunnelGlobal = `keystore cert key storepass cacert use-workload-api use-workload-api-addr use-workload-api-timeout pkcs11-module
		pkcs11-token-label pkcs11-pin timed-reload shutdown-timeout connect-timeout close-timeout max-conn-lifetime max-concurrent-conns
		metrics-graphite metrics-url metrics-prefix metrics-interval status enable-pprof enable-shutdown quiet skip-resolve syslog
		disable-landlock cipher-suites allow-unsafe-cipher-suites max-tls-version use-landlock`
	ghostunnelServer = `listen target unsafe-target target-status proxy-protocol proxy-protocol-mode allow-all allow-cn allow-ou allow-dns
		allow-uri allow-dns-san allow-uri-san allow-ip allow-ip-san allow-spki-pin allow-policy allow-query disable-authentication auto-acme-cert
		auto-acme-email auto-acme-agree-to-tos auto-acme-ca auto-acme-testca auto-acme-renew-check-interval auto-acme-alt-tls-alpn-port`
	ghostunnelClient = `listen target unsafe-listen override-server-name proxy connect-proxy verify-cn verify-ou verify-dns verify-uri
		verify-dns-san verify-uri-san verify-ip verify-ip-san verify-spki-pin verify-policy verify-query disable-authentication`
	ghostunnelHidden = `cipher-suites allow-unsafe-cipher-suites max-tls-version use-landlock allow-dns-san allow-uri-san allow-ip allow-ip-san
		auto-acme-renew-check-interval auto-acme-alt-tls-alpn-port connect-proxy verify-dns-san verify-uri-san verify-ip verify-ip-san`
)

func testOptions(vars map[string]string) *options {
	return newOptions(&cli.Env{Getenv: func(name string) string { return vars[name] }})
}

func flagSets() map[string]struct {
	flags []flag
	names []string
} {
	o := testOptions(nil)
	return map[string]struct {
		flags []flag
		names []string
	}{
		"server": {o.serverFlags(), strings.Fields(ghostunnelGlobal + " " + ghostunnelServer)},
		"client": {o.clientFlags(), strings.Fields(ghostunnelGlobal + " " + ghostunnelClient)},
	}
}

func TestEveryFlagOfGhostunnelIsTaken(t *testing.T) {
	hidden := strings.Fields(ghostunnelHidden)
	for verb, tc := range flagSets() {
		fs := pflag.NewFlagSet(verb, pflag.ContinueOnError)
		for _, f := range tc.flags {
			f.add(fs, true)
			theirs := slices.Contains(tc.names, f.name)
			if theirs == f.own {
				t.Errorf("%s --%s: own is %v", verb, f.name, f.own)
			}
			if global := slices.Contains(strings.Fields(ghostunnelGlobal), f.name); theirs && global != f.global {
				t.Errorf("%s --%s: may stand before the verb: %v", verb, f.name, f.global)
			}
		}
		for _, name := range tc.names {
			f := fs.Lookup(name)
			if f == nil {
				t.Errorf("%s has no --%s", verb, name)
				continue
			}
			if want := slices.Contains(hidden, name); f.Hidden != want {
				t.Errorf("%s --%s: hidden is %v", verb, name, f.Hidden)
			}
		}
		fs.VisitAll(func(f *pflag.Flag) {
			if !f.Hidden && !slices.Contains(tc.names, f.Name) {
				t.Errorf("%s --%s is Lanyard's own, and in ghostunnel's help", verb, f.Name)
			}
		})
	}
}

func TestEveryFlagHasAKeyAndAPlaceInTheHelp(t *testing.T) {
	for verb, tc := range flagSets() {
		for _, f := range tc.flags {
			if f.key == "" {
				t.Errorf("%s --%s has no key", verb, f.name)
			}
			if !slices.Contains(groupOrder(), f.group) {
				t.Errorf("%s --%s is in group %q", verb, f.name, f.group)
			}
			if _, isSwitch := f.into.(*bool); f.help != "" && !isSwitch && strings.Count(f.help, "`") != 2 {
				t.Errorf("%s --%s: its help doesn't name the value: %s", verb, f.name, f.help)
			}
		}
	}
}

func TestDefaultsAreGhostunnels(t *testing.T) {
	o := testOptions(nil)
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	o.add(fs, o.serverFlags())
	for name, want := range map[string]string{
		"shutdown-timeout": "5m", "connect-timeout": "10s", "close-timeout": "1m", "max-conn-lifetime": "0", "max-concurrent-conns": "0",
		"metrics-prefix": "ghostunnel", "metrics-interval": "30s", "cipher-suites": "AES,CHACHA", "timed-reload": "0", "allow-all": "false",
	} {
		if got := fs.Lookup(name).DefValue; got != want {
			t.Errorf("--%s: %s, want %s", name, got, want)
		}
	}
}

func TestEnvironmentIsForWhatTheCommandLineLeaves(t *testing.T) {
	vars := map[string]string{"KEYSTORE_PATH": "ks", "CERT_PATH": "c", "KEY_PATH": "", "KEYSTORE_PASS": "secret", "CACERT_PATH": "ca",
		"SPIFFE_ENDPOINT_SOCKET": "unix:///s", "PKCS11_MODULE": "m", "PKCS11_TOKEN_LABEL": "l", "PKCS11_PIN": "1234"}
	o := testOptions(vars)
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags := o.serverFlags()
	o.add(fs, flags)
	if err := fs.Parse([]string{"--cert=other", "--cacert="}); err != nil {
		t.Fatal(err)
	}
	if err := o.environment(flags); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ got, want string }{
		{o.keystore, "ks"}, {o.cert, "other"}, {o.key, ""}, {o.storePass, "secret"}, {o.caCert, ""}, {o.workloadAddr, "unix:///s"},
		{o.pkcs11Module, "m"}, {o.pkcs11Label, "l"}, {o.pkcs11PIN, "1234"}, {o.from["keystore"], "KEYSTORE_PATH"}, {o.from["cert"], ""},
	} {
		if tc.got != tc.want {
			t.Errorf("%q, want %q", tc.got, tc.want)
		}
	}
}

func TestDurationsAreShownAsWritten(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0", time.Minute: "1m", 90 * time.Second: "1m30s", 24 * time.Hour: "24h", 90 * time.Minute: "1h30m", 1500 * time.Millisecond: "1.5s"} {
		if got := shortDuration(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
		if back, err := time.ParseDuration(shortDuration(d)); err != nil || back != d {
			t.Errorf("%v came back as %v, %v", d, back, err)
		}
	}
}

func TestModesAreOctal(t *testing.T) {
	for s, want := range map[string]uint32{"0600": 0o600, "660": 0o660, "0777": 0o777} {
		if got, err := parseMode(s); err != nil || got != want {
			t.Errorf("%s: %o, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "0x1ff", "0888", "01000", "-1", "rw-------"} {
		if got, err := parseMode(s); err == nil {
			t.Errorf("%s: %o", s, got)
		}
	}
}
