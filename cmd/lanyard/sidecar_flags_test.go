package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/testca"
)

// wrongFlags are wrong values, and what is said of each. The rest of the command line is right.
func wrongFlags() []struct{ verb, flag, want string } {
	return []struct{ verb, flag, want string }{
		{"server", "--listen=", "--listen is missing: give HOST:PORT, unix:PATH or systemd:NAME"},
		{"server", "--listen=nowhere", "--listen nowhere: not an address: give HOST:PORT, unix:PATH or systemd:NAME"},
		{"server", "--listen=:70000", `--listen :70000: "70000" is not a port: give a number up to 65535`},
		{"server", "--listen=launchd:x", "--listen launchd:x: launchd is macOS only: give HOST:PORT, unix:PATH or systemd:NAME"},
		{"client", "--listen=0.0.0.0:1", "--listen 0.0.0.0:1: others could use this identity: use 127.0.0.1:PORT, [::1]:PORT, localhost:PORT, unix:PATH or systemd:NAME, or set --unsafe-listen"},
		{"client", "--unsafe-listen=maybe", `--unsafe-listen: want true or false, got "maybe"`},
		{"server", "--target=10.0.0.1:80", "--target 10.0.0.1:80: plaintext would leave this machine: use 127.0.0.1:PORT, [::1]:PORT, localhost:PORT or unix:PATH, or set --unsafe-target"},
		{"server", "--target=systemd:x", "--target systemd:x: can be listened on only: give HOST:PORT or unix:PATH"},
		{"client", "--target=unix:x", "--target unix:x: a client's target is HOST:PORT"},
		{"server", "--unsafe-target=maybe", `--unsafe-target: want true or false, got "maybe"`},
		{"server", "--target-status=x", "--target-status x: not a URL: give http://HOST/PATH or https://HOST/PATH"},
		{"server", "--proxy-protocol-mode=v1", `--proxy-protocol-mode: "v1" is unknown; accepted: conn, tls, tls-full`},
		{"server", "--proxy-protocol --proxy-protocol-mode=tls", "--proxy-protocol: --proxy-protocol and --proxy-protocol-mode exclude each other: drop one"},
		{"server", "--accept-proxy-protocol=10.0.0.0/33", "--accept-proxy-protocol 10.0.0.0/33: "},
		{"client", "--proxy=https://127.0.0.1:1", "--proxy https://127.0.0.1:1: "},
		{"server", "--alpn=", `--alpn "": a protocol has 1 to 255 bytes: give one such as h2 or http/1.1`},
		{"server", "--socket-mode=rw", `--socket-mode: want permissions in octal digits, like 0600 or 0660, got "rw"`},
		{"server", "--reuse-port=maybe", `--reuse-port: want true or false, got "maybe"`},
		{"server", "--skip-resolve=maybe", `--skip-resolve: want true or false, got "maybe"`},

		{"server", "--keystore=store.pem", "--cert cert.pem: there is another source of certificates, --keystore store.pem: keep one"},
		{"server", "--use-workload-api-addr=unix:///x", "--cert cert.pem: there is another source of certificates, --use-workload-api-addr unix:///x: keep one"},
		{"server", "--use-workload-api-timeout=-1s", "--use-workload-api-timeout -1s: must be more than 0"},
		{"server", "--use-workload-api-timeout=5", `--use-workload-api-timeout: want a duration with a unit, like 90s, 10m or 24h, got "5"`},
		{"server", "--spiffe-id=x", "--spiffe-id x: no SPIFFE ID: scheme is missing or invalid"},
		{"server", "--hint=x", "--hint x: picks one of several SVIDs of a Workload API, and there is none: drop it"},
		{"server", "--trust-bundle=x", "--trust-bundle x: give TRUST-DOMAIN=FILE, such as example.org=bundle.pem"},
		{"server", "--trust-bundle=a=ca.pem", "--cacert ca.pem: the trust bundles have the authorities: drop it"},
		{"server", "--pkcs11-module=/nosuch --pkcs11-token-label=x", "--key key.pem: the private key is in /nosuch: keep one"},
		{"server", "--pkcs11-token-label=x", "--pkcs11-module: a token or PIN needs a module: name the shared library, or drop them"},
		{"server", "--pkcs11-pin=x", "--pkcs11-module: a token or PIN needs a module: name the shared library, or drop them"},
		{"server", "--auto-acme-cert=a.example --auto-acme-email=x@a.example --auto-acme-agree-to-tos", "--auto-acme-cert a.example: there is another source of certificates, --cert cert.pem: keep one"},
		{"server", "--max-tls-version=1.2", "--max-tls-version 1.2: give TLS1.2 or TLS1.3"},
		{"server", "--cipher-suites=RC4", "--cipher-suites RC4: no group of cipher suites; accepted: AES, CHACHA"},
		{"server", "--timed-reload=-1s", "--timed-reload -1s: must not be negative: give 0 for none"},
		{"client", "--disable-authentication", "--cert cert.pem: no certificate is to be shown: drop it, or let one be shown"},

		{"server", "--allow-uri=spiffe://a/b", "--allow-all excludes --allow-uri: drop one or the other"},
		{"client", "--verify-uri=a/b*", "--verify-uri a/b*: * must be a whole segment between slashes"},
		{"client", "--verify-uri=", `--verify-uri "": `},
		{"client", "--verify-trust-domain=A", "--verify-trust-domain A: trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores"},
		{"client", "--deny-uri=x", "--deny-uri x: matches no URI, as it has no scheme: write spiffe://x"},
		{"client", "--verify-cn=", `--verify-cn "": an empty name would admit every certificate that has no CN, so every ordinary SVID: give the name expected`},
		{"client", "--verify-ou=", `--verify-ou "": an empty name`},
		{"client", "--verify-dns=", `--verify-dns "": an empty name`},
		{"client", "--verify-ip=x", "--verify-ip x: not an IP address: give one such as 192.0.2.1 or 2001:db8::1"},
		{"client", "--verify-spki-pin=md5:x", `--verify-spki-pin md5:x: unknown algorithm "md5": give sha256, sha384 or sha512`},
		{"client", "--verify-policy=x.rego", "--verify-query is missing: --verify-policy x.rego needs one, such as data.lanyard.allow"},
		{"client", "--verify-query=data.x", "--verify-policy is missing: --verify-query data.x needs the policy's file or bundle"},
		{"server", "--disable-authentication", "--disable-authentication excludes --allow-all: drop one or the other"},

		{"server", "--connect-timeout=0s", "--connect-timeout 0: must be more than 0"},
		{"server", "--close-timeout=1", `--close-timeout: want a duration with a unit, like 90s, 10m or 24h, got "1"`},
		{"server", "--idle-timeout=-1s", "--idle-timeout -1s: must be more than 0"},
		{"server", "--max-conn-lifetime=-1s", "--max-conn-lifetime -1s: must be more than 0"},
		{"server", "--shutdown-timeout=-1s", "--shutdown-timeout -1s: must be more than 0"},
		{"server", "--drain-idle=x", `--drain-idle: want a duration with a unit, like 90s, 10m or 24h, got "x"`},
		{"server", "--tcp-keep-alive=-1s", "--tcp-keep-alive -1s: must be more than 0"},
		{"server", "--tcp-user-timeout=-1s", "--tcp-user-timeout -1s: must be more than 0"},
		{"server", "--max-concurrent-conns=-1", `--max-concurrent-conns: want a whole number, got "-1"`},
		{"server", "--max-conns-per-peer=x", `--max-conns-per-peer: want a whole number, got "x"`},
		{"server", "--max-handshakes=x", `--max-handshakes: want a whole number, got "x"`},

		{"server", "--status=x", "--status x: not an address: give HOST:PORT, unix:PATH or systemd:NAME"},
		{"server", "--status=http://unix:x", "--status http://unix:x: a scheme goes with HOST:PORT only: give unix:x"},
		{"server", "--status=127.0.0.1:1 --listen=127.0.0.1:1", "--listen 127.0.0.1:1: is the address of status too: give each its own"},
		{"server", "--enable-pprof", "--enable-pprof needs a status address to be served on: add one"},
		{"server", "--enable-shutdown", "--enable-shutdown needs a status address to be served on: add one"},
		{"server", "--metrics-url=ftp://me:s3cret@x", "--metrics-url ftp://x: has to start with http:// or https://"},
		{"server", "--metrics-graphite=x", "--metrics-graphite x: not an address: give HOST:PORT"},
		{"server", "--metrics-interval=-1s", "--metrics-interval -1s: must be more than 0"},
		{"server", "--quiet=all,conns", `--quiet: "all,conns" is unknown; accepted: all, conns, conn-errs, handshake-errs; repeat the flag for more than one`},
		{"server", "--quiet=conn", `--quiet: "conn" is unknown; did you mean "conn-errs"?`},
		{"server", "--syslog --log-file=x", "--syslog and --log-file x exclude each other: drop one"},
		{"server", "--log-level=loud", `log level "loud" is unknown; accepted: debug, info, warn, error, trace`},
		{"server", "--log-format=xml", `log format "xml" is unknown; accepted: text, json`},
	}
}

// TestEachWrongFlagIsOneLine: it names the flag, the value and the mend, on standard error, with exit code 1, before anything is begun.
func TestEachWrongFlagIsOneLine(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := writeCerts(t, ".", testca.New(t, "a"), "spiffe://a/b"); err != nil {
		t.Fatal(err)
	}
	base := map[string]string{
		"server": "--listen=unix:l.sock --target=unix:t.sock --cert=cert.pem --key=key.pem --cacert=ca.pem --allow-all",
		"client": "--listen=unix:l.sock --target=127.0.0.1:1 --cert=cert.pem --key=key.pem --cacert=ca.pem",
	}
	tried := map[string]bool{}
	for _, tc := range wrongFlags() {
		args := []string{"sidecar", tc.verb}
		wrong := strings.Fields(tc.flag)
		for _, arg := range strings.Fields(base[tc.verb]) {
			name, _, _ := strings.Cut(arg, "=")
			if !strings.Contains(" "+tc.flag, " "+name+"=") {
				args = append(args, arg)
			}
		}
		for _, arg := range wrong {
			name, _, _ := strings.Cut(arg, "=")
			tried[strings.TrimPrefix(name, "--")] = true
		}
		stdout, stderr, code := execute(t, nil, append(args, wrong...)...)
		want := "Error: " + tc.want
		first, rest, _ := strings.Cut(stderr, "\n")
		if strings.HasSuffix(tc.want, ": ") || strings.HasSuffix(tc.want, "an empty name") || strings.HasSuffix(tc.want, "expected") {
			first = first[:min(len(first), len(want))]
		}
		if diff := cmp.Diff(want, first); diff != "" || rest != "" || code != 1 || stdout != "" {
			t.Errorf("%s %s: exit code %d, %q, %q (-want +got) %s", tc.verb, tc.flag, code, stdout, stderr, diff)
		}
	}
	if _, err := os.Stat("l.sock"); err == nil {
		t.Error("a socket was made")
	}
	for verb := range base {
		sidecarFlags(t, verb).VisitAll(func(f *pflag.Flag) {
			name := strings.Replace(f.Name, "allow-", "verify-", 1)
			if !tried[f.Name] && !tried[name] && !anyValue[f.Name] {
				t.Errorf("%s --%s: no wrong value of it is tried", verb, f.Name)
			}
		})
	}
}

// anyValue are flags of which no value is wrong by itself.
var anyValue = map[string]bool{
	"help": true, "override-server-name": true, "connect-proxy": true, "cert": true, "key": true, "cacert": true, "storepass": true,
	"use-workload-api": true, "allow-unsafe-cipher-suites": true, "no-resumption": true, "watch": true, "auto-acme-email": true,
	"auto-acme-agree-to-tos": true, "auto-acme-ca": true, "auto-acme-testca": true, "auto-acme-renew-check-interval": true,
	"auto-acme-alt-tls-alpn-port": true, "allow-all": true, "allow-own-trust-domain": true, "verify-own-trust-domain": true,
	"metrics-prefix": true, "log-source-location": true, "disable-landlock": true, "use-landlock": true,
	"allow-dns-san": true, "allow-uri-san": true, "allow-ip-san": true, "verify-dns-san": true, "verify-uri-san": true, "verify-ip-san": true,
}

// sidecarFlags are the flags of server or client.
func sidecarFlags(t *testing.T, verb string) *pflag.FlagSet {
	env := &cli.Env{Getenv: func(string) string { return "" }}
	cmd, _, err := root(env).Find([]string{"sidecar", verb})
	if err != nil {
		t.Fatal(err)
	}
	return cmd.Flags()
}

// TestFilesThatAreNotGoodAreNamed: by the flag, before anything listens.
func TestFilesThatAreNotGoodAreNamed(t *testing.T) {
	dir := shortDir(t)
	if err := writeCerts(t, dir, testca.New(t, "a"), "spiffe://a/b"); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"empty": "", "text": "no PEM here\n", "bad.rego": "package x\n\nallow if {"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for args, want := range map[string]string{
		"--cert=nosuch --key=key.pem --allow-all":                                                       "--cert nosuch: ",
		"--cert=cert.pem --key=nosuch --allow-all":                                                      "--key nosuch: ",
		"--cert=cert.pem --key=cert.pem --allow-all":                                                    "--key cert.pem",
		"--cert=text --key=key.pem --allow-all":                                                         "--cert text",
		"--cert=empty --key=key.pem --allow-all":                                                        "--cert empty",
		"--cert=cert.pem --key=key.pem --cacert=text --allow-all":                                       "--cacert text",
		"--cert=cert.pem --key=key.pem --cacert=nosuch --allow-all":                                     "--cacert nosuch",
		"--keystore=text --allow-all":                                                                   "--keystore text",
		"--keystore=nosuch --allow-all":                                                                 "--keystore nosuch",
		"--keystore=ca.pem --allow-all":                                                                 "--keystore ca.pem",
		"--cert=cert.pem --key=key.pem --trust-bundle=a=text --allow-all":                               "--trust-bundle",
		"--cert=cert.pem --key=key.pem --cacert=ca.pem --allow-policy=nosuch.rego --allow-query=data.x": "--allow-policy nosuch.rego",
		"--cert=cert.pem --key=key.pem --cacert=ca.pem --allow-policy=bad.rego --allow-query=data.x":    "--allow-policy bad.rego",
		"--cert=cert.pem --key=key.pem --cacert=ca.pem --allow-policy=bad.rego --allow-query=x(":        "--allow-query x(",
		"--cert=cert.pem --key=key.pem --cacert=ca.pem --allow-all --log-file=nosuch/log":               "log file: open nosuch/log: no such file or directory",
	} {
		p := start(t, dir, nil, "lanyard", append([]string{"sidecar", "server", "--listen=unix:l.sock", "--target=unix:t.sock"}, strings.Fields(args)...)...)
		p.end(1)
		var errs []string
		for line := range strings.Lines(p.text()) {
			if strings.HasPrefix(line, "Error: ") {
				errs = append(errs, line)
			}
		}
		if len(errs) != 1 || !strings.HasPrefix(errs[0], "Error: "+want) || strings.Contains(p.text(), "msg=listening") {
			t.Errorf("%s: want %q\n%s", args, want, p.text())
		}
	}
}
