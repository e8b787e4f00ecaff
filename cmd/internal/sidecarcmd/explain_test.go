package sidecarcmd

import (
	"bytes"
	"crypto/x509"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/testca"
)

// To a tunnel that verifies no SVIDs, a SPIFFE ID is a name like others, of no trust domain; to one that does, a certificate is
// an SVID or nothing. The explanation must not promise what the handshake refuses.
func TestExplainVerifiesAsTheTunnelDoes(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		testca.Write(t, path, data)
		return path
	}
	ca := testca.New(t, "one.test")
	id := func(path string) *url.URL { return &url.URL{Scheme: "spiffe", Host: "one.test", Path: path} }
	svid := write("svid.pem", testca.PEM(ca.SVID(t, "spiffe://one.test/a").Certificates...))
	two := write("two.pem", testca.PEM(ca.SVID(t, "spiffe://one.test/a", func(c *x509.Certificate) { c.URIs = append(c.URIs, id("/b")) }).Certificates...))
	const identity = `
  identity {
    cert = "c"
    key  = "k"
    `
	files := func(rules string) []byte {
		return []byte("tunnel \"t\" {\n  direction = \"inbound\"\n  listen = \":1\"\n  target = \"localhost:2\"" + identity + rules)
	}
	web := write("web.hcl", files("ca_cert = \"ca\"\n  }\n  policy {\n    allow_uris = [\"spiffe://one.test/*\"]\n  }\n}\n"))
	domain := write("domain.hcl", files("ca_cert = \"ca\"\n  }\n  policy {\n    allow_trust_domains = [\"one.test\"]\n  }\n}\n"))
	spiffe := write("spiffe.hcl", files("trust_bundle \"one.test\" {\n      file = \"b\"\n    }\n  }\n  policy {\n    allow_uris = [\"spiffe://one.test/*\"]\n  }\n}\n"))
	for name, tt := range map[string]struct {
		args string
		ok   bool
		want string
	}{
		"name":                    {"-config " + web + " -peer spiffe://one.test/a", true, "allowed by allow_uris"},
		"name in certificate":     {"-config " + web + " -cert " + two, true, "allowed by allow_uris"},
		"name of no trust domain": {"-config " + domain + " -peer spiffe://one.test/a", false, "the peer has no SPIFFE ID"},
		"SVID of no trust domain": {"-config " + domain + " -cert " + svid, false, "the peer has no SPIFFE ID"},
		"not its name":            {"-config " + web + " -cert " + svid + " -peer spiffe://one.test/b", false, "not among the names"},
		"SVID":                    {"-config " + spiffe + " -cert " + svid, true, "allowed by allow_uris"},
		"SVID by ID":              {"-config " + spiffe + " -peer spiffe://one.test/a", true, "allowed by allow_uris"},
		"no SVID":                 {"-config " + spiffe + " -cert " + two, false, "is no X.509-SVID, which this tunnel wants"},
		"another's SVID":          {"-config " + spiffe + " -cert " + svid + " -peer spiffe://one.test/b", false, "which is that of spiffe://one.test/a"},
	} {
		var out bytes.Buffer
		cmd := explainVerb(&cli.Env{Stdout: &out, Stderr: &out, Getenv: func(string) string { return "" }})
		cmd.SetArgs([]string{})
		if err := cmd.ParseFlags(strings.Fields(strings.ReplaceAll(" "+tt.args, " -", " --"))); err != nil {
			t.Fatal(err)
		}
		cmd.SetContext(t.Context())
		err := cmd.RunE(cmd, nil)
		text := out.String()
		if err != nil {
			text += err.Error()
		}
		if !strings.Contains(text, tt.want) || (err == nil) != tt.ok {
			t.Errorf("%s: %v, %q; want %q", name, err, text, tt.want)
		}
	}
}
