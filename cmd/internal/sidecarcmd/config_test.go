package sidecarcmd

import (
	"bytes"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/hclconf"
	"github.com/lanyard-mtls/lanyard/sidecar"
	"github.com/lanyard-mtls/lanyard/sidecar/accept"
	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/metrics"
	"github.com/lanyard-mtls/lanyard/sidecar/policy"
	"github.com/lanyard-mtls/lanyard/sidecar/proxyproto"
	"github.com/lanyard-mtls/lanyard/sidecar/record"
)

// fromFlags gives what a command line describes.
func fromFlags(t *testing.T, mode sidecar.Mode, vars map[string]string, args string) (sidecar.Config, []string, error) {
	t.Helper()
	o := testOptions(vars)
	flags := o.serverFlags()
	if mode == sidecar.Client {
		flags = o.clientFlags()
	}
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	o.add(fs, flags)
	if err := fs.Parse(strings.Fields(args)); err != nil {
		t.Fatal(err)
	}
	if err := o.environment(flags); err != nil {
		t.Fatal(err)
	}
	return o.config(mode)
}

// fromFile gives what a file describes.
func fromFile(t *testing.T, src string) sidecar.Config {
	t.Helper()
	var f file
	conf := hclconf.Parse("f", []byte(src))
	conf.Decode(&f)
	if err := conf.Err(); err != nil {
		t.Fatal(err)
	}
	cfg, err := f.config(&cli.Env{Getenv: func(string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

const everyServerFlag = `--listen=:1 --target=t:2 --unsafe-target --target-status=http://x/y --proxy-protocol-mode=tls --accept-proxy-protocol=10.0.0.0/8
	--allow-all --allow-own-trust-domain --allow-cn=cn --allow-ou=ou --allow-dns=dns --allow-ip=::1 --allow-uri=spiffe://a/b --allow-uri-san=spiffe://a/c
	--allow-trust-domain=a --deny-uri=spiffe://a/d --allow-spki-pin=pin --allow-policy=p --allow-query=q --disable-authentication
	--use-workload-api-addr=unix:///s --spiffe-id=spiffe://a/me --hint=h --keystore=ks --storepass=pw --cert=c --key=k --cacert=ignored
	--trust-bundle=a=f --pkcs11-module=m --pkcs11-token-label=l --pkcs11-pin=p --watch --auto-acme-cert=n --auto-acme-email=e --auto-acme-agree-to-tos
	--auto-acme-ca=https://ca --auto-acme-testca=https://test --auto-acme-renew-check-interval=1m --auto-acme-alt-tls-alpn-port=5
	--alpn=h2 --alpn=http/1.1 --max-tls-version=tls1.2 --cipher-suites=CHACHA,UNSAFE-AZURE --allow-unsafe-cipher-suites --no-resumption
	--connect-timeout=1s --close-timeout=2s --idle-timeout=3s --max-conn-lifetime=4s --shutdown-timeout=5s --drain-idle=6s --tcp-keep-alive=7s
	--tcp-user-timeout=8s --max-concurrent-conns=9 --max-conns-per-peer=10 --max-handshakes=11 --reuse-port --socket-mode=0660 --skip-resolve
	--status=http://:3 --enable-pprof --enable-shutdown --metrics-prefix=x --metrics-interval=12s --metrics-graphite=g:1 --metrics-url=http://u
	--quiet=conns --quiet=conn-errs --use-workload-api-timeout=13s`

func everyServerTunnel() sidecar.Tunnel {
	return sidecar.Tunnel{
		Mode: sidecar.Server, Listen: ":1", Target: "t:2", UnsafeTarget: true, TargetStatus: "http://x/y", ProxyProtocol: proxyproto.TLS,
		AcceptProxyProtocol: []string{"10.0.0.0/8"}, ALPN: []string{"h2", "http/1.1"}, MaxTLSVersion: tls.VersionTLS12,
		CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256},
		NoResumption: true, ConnectTimeout: time.Second, CloseTimeout: 2 * time.Second, IdleTimeout: 3 * time.Second, MaxAge: 4 * time.Second,
		Limits:      accept.Limits{Connections: 9, PerPeer: 10, Handshakes: 11},
		KeepAlive:   net.KeepAliveConfig{Enable: true, Idle: 7 * time.Second, Interval: 7 * time.Second, Count: 9},
		UserTimeout: 8 * time.Second, SocketMode: 0o660, ReusePort: true, SkipResolve: true,
		Identity: identity.Config{WorkloadAPI: "unix:///s", SPIFFEID: spiffeid.RequireFromString("spiffe://a/me"), Hint: "h", Keystore: "ks", StorePass: "pw",
			Cert: "c", Key: "k", TrustBundles: map[string]string{"a": "f"}, PKCS11: identity.PKCS11{Module: "m", TokenLabel: "l", PIN: "p"}, Watch: true,
			ACME: identity.ACME{FQDN: "n", Email: "e", AgreeToTOS: true, CA: "https://ca", TestCA: "https://test", Storage: "/data/certmagic", RenewCheckInterval: time.Minute, AltTLSALPNPort: 5}},
		Policy: policy.Config{AllowAll: true, OwnTrustDomain: true, AllowCNs: []string{"cn"}, AllowOUs: []string{"ou"}, AllowDNSNames: []string{"dns"},
			AllowIPs: []string{"::1"}, AllowURIs: []string{"spiffe://a/b", "spiffe://a/c"}, AllowTrustDomains: []string{"a"}, DenyURIs: []string{"spiffe://a/d"},
			Pins: []string{"pin"}, Rego: policy.Rego{Path: "p", Query: "q", Timeout: time.Second}, DisableAuthentication: true, Wide: true},
	}
}

func TestFlagsBecomeTheConfiguration(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", "/data")
	got, notes, _ := fromFlags(t, sidecar.Server, nil, everyServerFlag) // which is contradictory
	want := sidecar.Config{
		Tunnels: []sidecar.Tunnel{everyServerTunnel()}, Status: sidecar.Status{Listen: "http://:3", PProf: true, Shutdown: true},
		Metrics:         metrics.Config{Prefix: "x", Graphite: "g:1", URL: "http://u", Interval: 12 * time.Second},
		ShutdownTimeout: 5 * time.Second, DrainIdle: 6 * time.Second, IdentityTimeout: 13 * time.Second,
		Quiet: record.QuietConnections | record.QuietConnErrors, Sandbox: sidecar.Sandbox{Enabled: true}, Revision: cli.Version(),
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(spiffeid.ID{})); diff != "" {
		t.Error(diff)
	}
	if len(notes) != 1 || !strings.HasPrefix(notes[0], "--cacert ignored is not used") {
		t.Errorf("%q", notes)
	}
	got, _, _ = fromFlags(t, sidecar.Client, nil, "--listen=:1 --target=t:2 --unsafe-listen --override-server-name=n --connect-proxy=http://p --disable-authentication --cacert=ca")
	tunnel := got.Tunnels[0]
	if !tunnel.UnsafeListen || tunnel.ServerName != "n" || tunnel.Via != "http://p" || !tunnel.Identity.None || tunnel.Identity.CACert != "ca" || tunnel.Policy.DisableAuthentication {
		t.Errorf("%+v", tunnel)
	}
}

// Whatever a tunnel can be told is told by some flag.
func TestNoSettingIsWithoutItsFlag(t *testing.T) {
	tunnel := everyServerTunnel()
	tunnel.Name, tunnel.UnsafeListen, tunnel.ServerName, tunnel.Via = "-", true, "-", "-" // a command line has one; the rest is the client's
	tunnel.Identity.CACert, tunnel.Identity.None, tunnel.Policy.HostName, tunnel.Policy.Direction = "-", true, true, "-"
	for _, part := range []any{tunnel, tunnel.Identity, tunnel.Identity.ACME, tunnel.Identity.PKCS11, tunnel.Policy, tunnel.Policy.Rego, tunnel.Limits} {
		v := reflect.ValueOf(part)
		for i := range v.NumField() {
			if v.Field(i).IsZero() {
				t.Errorf("%s.%s is tested with no flag", v.Type(), v.Type().Field(i).Name)
			}
		}
	}
}

func TestZeroMeansNoneInAFlag(t *testing.T) {
	got, _, _ := fromFlags(t, sidecar.Server, nil, "--close-timeout=0s --drain-idle=0s --shutdown-timeout=0s --max-handshakes=0 --tcp-keep-alive=0s")
	tunnel := got.Tunnels[0]
	if tunnel.CloseTimeout != -1 || got.DrainIdle != -1 || got.ShutdownTimeout != 1 || tunnel.Limits.Handshakes < 1<<20 || tunnel.KeepAlive.Enable || tunnel.KeepAlive == (net.KeepAliveConfig{}) {
		t.Errorf("%+v", got)
	}
}

func TestIdentityOfTheEnvironmentYields(t *testing.T) {
	const api = "unix:///env"
	for _, tc := range []struct {
		args, want string
		notes      int
	}{
		{"", api, 0},
		{"--cert=c --key=k", "", 1},
		{"--keystore=k", "", 1},
		{"--auto-acme-cert=n", "", 1},
		{"--cert=c --key=k --use-workload-api", api, 0}, // refused by Validate
		{"--cert=c --key=k --use-workload-api-addr=unix:///flag", "unix:///flag", 0},
		{"--use-workload-api-addr=", "", 0},
		{"--use-workload-api=false", "", 0},
		{"--use-workload-api-addr=unix:///flag", "unix:///flag", 0},
	} {
		got, notes, _ := fromFlags(t, sidecar.Server, map[string]string{"SPIFFE_ENDPOINT_SOCKET": api}, tc.args)
		if addr := got.Tunnels[0].Identity.WorkloadAPI; addr != tc.want || len(notes) != tc.notes {
			t.Errorf("%s: %q, %q; want %q", tc.args, addr, notes, tc.want)
		}
	}
	got, _, _ := fromFlags(t, sidecar.Server, map[string]string{"LANYARD_RUN_DIR": "/r", "LANYARD_STATE_DIR": "/s"}, "--use-workload-api")
	if addr := got.Tunnels[0].Identity.WorkloadAPI; addr != "unix:///r/agent/public/api.sock" {
		t.Errorf("%q", addr)
	}
}

// A client that names nobody expects its own trust domain, if it knows peers by SPIFFE ID, and else a host name.
func TestGap02ClientExpectsItsOwnTrustDomain(t *testing.T) {
	for args, own := range map[string]bool{
		"--use-workload-api-addr=unix:///s":                                    true,
		"--use-workload-api-addr=unix:///s --disable-authentication":           true,
		"--cert=c --key=k --trust-bundle=a=f":                                  true,
		"--use-workload-api-addr=unix:///s --deny-uri=spiffe://a/b":            true,
		"--use-workload-api-addr=unix:///s --verify-uri=spiffe://a/b":          false,
		"--use-workload-api-addr=unix:///s --verify-trust-domain=b":            false,
		"--use-workload-api-addr=unix:///s --verify-policy=p --verify-query=q": false,
		"--cert=c --key=k --cacert=ca":                                         false,
	} {
		got, _, err := fromFlags(t, sidecar.Client, nil, "--listen=127.0.0.1:0 --target=t:1 "+args)
		if got.Tunnels[0].Policy.OwnTrustDomain != own || err != nil {
			t.Errorf("%s: own trust domain %v, %v", args, !own, err)
		}
	}
}

func TestFileBecomesTheConfiguration(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"pass": "pw\n", "pin": "p"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := fromFile(t, strings.ReplaceAll(everyKey, "DIR", dir))
	server := everyServerTunnel()
	server.Name, server.UnsafeListen, server.ServerName, server.Via = "s", true, "n", "http://p"
	server.CipherSuites = server.CipherSuites[:2]
	server.NoResumption, server.Policy.Wide = false, false
	server.Identity.CACert, server.Identity.None = "ca", true
	server.Identity.ACME.RenewCheckInterval, server.Identity.ACME.AltTLSALPNPort, server.Identity.ACME.Storage = 0, 0, ""
	client := sidecar.Tunnel{Name: "c", Mode: sidecar.Client, Listen: "127.0.0.1:1", Target: "t:1", CloseTimeout: time.Minute,
		Identity: identity.Config{WorkloadAPI: "unix:///default", Watch: true}}
	want := sidecar.Config{
		Tunnels: []sidecar.Tunnel{server, client}, Status: sidecar.Status{Listen: "http://:3", PProf: true, Shutdown: true},
		Metrics:         metrics.Config{Prefix: "x", Graphite: "g:1", URL: "http://u", Interval: 12 * time.Second},
		ShutdownTimeout: 5 * time.Second, DrainIdle: 6 * time.Second, Quiet: record.QuietConnections | record.QuietConnErrors, Revision: cli.Version(),
		Sandbox: sidecar.Sandbox{Reloads: true, WriteDirs: []string{"/var/log"}},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(spiffeid.ID{})); diff != "" {
		t.Error(diff)
	}
}

const everyKey = `
log_file = "/var/log/x"
shutdown_timeout = "5s"
drain_idle = "6s"
workload_api = "unix:///default"
quiet = ["conns", "conn-errs"]
disable_landlock = true
status {
  listen = "http://:3"
  pprof = true
  shutdown = true
}
metrics {
  prefix = "x"
  graphite = "g:1"
  url = "http://u"
  interval = "12s"
}
tunnel "s" {
  direction = "inbound"
  listen = ":1"
  target = "t:2"
  unsafe_listen = true
  unsafe_target = true
  server_name = "n"
  target_status = "http://x/y"
  via = "http://p"
  proxy_protocol = "tls"
  accept_proxy_protocol = ["10.0.0.0/8"]
  alpn = ["h2", "http/1.1"]
  socket_mode = "0660"
  reuse_port = true
  skip_resolve = true
  identity {
    workload_api = "unix:///s"
    spiffe_id = "spiffe://a/me"
    hint = "h"
    cert = "c"
    key = "k"
    ca_cert = "ca"
    keystore = "ks"
    store_pass_file = "DIR/pass"
    none = true
    trust_bundle "a" {
      file = "f"
    }
    pkcs11 {
      module = "m"
      token_label = "l"
      pin_file = "DIR/pin"
    }
    acme {
      name = "n"
      email = "e"
      agree_to_tos = true
      ca = "https://ca"
      test_ca = "https://test"
    }
  }
  policy {
    allow_all = true
    own_trust_domain = true
    allow_uris = ["spiffe://a/b", "spiffe://a/c"]
    allow_trust_domains = ["a"]
    deny_uris = ["spiffe://a/d"]
    allow_cns = ["cn"]
    allow_ous = ["ou"]
    allow_dns_names = ["dns"]
    allow_ips = ["::1"]
    pins = ["pin"]
    rego = "p"
    query = "q"
    disable_authentication = true
  }
  timeouts {
    connect = "1s"
    close = "2s"
    idle = "3s"
    max_age = "4s"
  }
  limits {
    connections = 9
    per_peer = 10
    handshakes = 11
  }
  tcp {
    keep_alive = "7s"
    user_timeout = "8s"
  }
  tls {
    max_version = "TLS1.2"
    cipher_suites = ["CHACHA"]
  }
}
tunnel "c" {
  direction = "outbound"
  listen = "127.0.0.1:1"
  target = "t:1"
}
`

// TestNoKeyIsUntested: whatever a file can say is in the test above.
func TestNoKeyIsUntested(t *testing.T) {
	paths := map[string]bool{}
	filePaths(reflect.TypeFor[file](), "", paths)
	for path := range paths {
		key := path[strings.LastIndex(path, ".")+1:]
		logs := strings.HasPrefix(key, "log_") || key == "syslog"
		if !logs && !strings.Contains(everyKey, " "+key+" ") && !strings.Contains(everyKey, "\n"+key+" ") {
			t.Errorf("%s is not tested", path)
		}
	}
}

// FuzzFile: whatever a file says, each fault is one line with its place.
func FuzzFile(f *testing.F) {
	f.Add([]byte(everyKey))
	f.Add([]byte("tunnel \"a\" {}\ntunnel \"a\" {\n policy {\n allow_uris = [\"*\", \"\", \"spiffe://a/**/b\"]\n }\n}"))
	f.Add([]byte("tunnel \"a\\nb\" {\n direction = \"in\\nbound\"\n listen = \"unix:\\n\"\n target = \"\\u0000:1\"\n}"))
	f.Add([]byte("status {\n listen = \"https://[::1\"\n}\nmetrics {\n url = \"http://a b\\n\"\n}\nworkload_api = \"\\t\""))
	f.Fuzz(func(t *testing.T, src []byte) {
		if bytes.Contains(src, []byte("_file")) {
			return // reads files of this machine
		}
		var content file
		conf := hclconf.Parse("f", src)
		conf.Decode(&content)
		cfg, err := content.config(&cli.Env{Getenv: func(string) string { return "" }})
		inFile(conf, content.unambiguous(err))
		inFile(conf, content.unambiguous(without(cfg.Validate(), err)))
		if err := conf.Err(); err != nil {
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if !strings.HasPrefix(line, "f:") {
					t.Fatalf("a fault without its place: %q in %q", line, err)
				}
			}
		}
	})
}
