package sidecarcmd

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/lanyard-mtls/lanyard/sidecar"
)

func TestWarnsOfPublicAuthorities(t *testing.T) {
	for args, want := range map[string]bool{
		"--allow-all --cert=c --key=k":                             true,
		"--allow-cn=a --keystore=k":                                true,
		"--allow-all --cert=c --key=k --cacert=ca":                 false,
		"--disable-authentication --cert=c --key=k":                false,
		"--allow-all --cert=c --key=k --trust-bundle=one.test=f":   false,
		"--allow-all --use-workload-api":                           false,
		"--allow-spki-pin=" + anyPin + " --cert=c --key=k":         false,
		"--allow-all --auto-acme-cert=n --auto-acme-email=e@n.tld": true,
	} {
		cfg, _, _ := fromFlags(t, sidecar.Server, nil, "--listen=localhost:1 --target=localhost:2 "+args)
		var out bytes.Buffer
		warn(slog.New(slog.NewTextHandler(&out, nil)), cfg.Tunnels)
		if got := strings.Contains(out.String(), "any public one passes"); got != want {
			t.Errorf("%s: %q", args, out.String())
		}
	}
	cfg, _, _ := fromFlags(t, sidecar.Client, nil, "--listen=localhost:1 --target=localhost:2 --cert=c --key=k")
	if trustsEverybody(cfg.Tunnels[0]) {
		t.Error("a client knows its server by name")
	}
}

const anyPin = "sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
