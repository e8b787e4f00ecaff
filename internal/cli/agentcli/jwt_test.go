package agentcli

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"

	"github.com/lanyard-mtls/lanyard/internal/cli"
)

func TestPrintJWTsIsSPIREsText(t *testing.T) {
	svids := &workload.JWTSVIDResponse{Svids: []*workload.JWTSVID{{SpiffeId: "spiffe://a/b", Svid: "x.y.z", Hint: "h"}, {SpiffeId: "spiffe://a/c", Svid: "u.v.w"}}}
	bundles := &workload.JWTBundlesResponse{Bundles: map[string][]byte{"spiffe://b": []byte(`{"keys":[]}`), "spiffe://a": []byte(`{}`)}}
	var b bytes.Buffer
	printJWTs(&b, svids, bundles)
	want := "token(spiffe://a/b):\n\tx.y.z\nhint(spiffe://a/b):\n\th\ntoken(spiffe://a/c):\n\tu.v.w\n" +
		"bundle(spiffe://a):\n\t{}\nbundle(spiffe://b):\n\t{\"keys\":[]}\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
	var out cli.Output
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	out.AddFlag(fs)
	if err := fs.Set("output", "json"); err != nil {
		t.Fatal(err)
	}
	b.Reset()
	if err := printBothJWT(&b, &out, svids, bundles); err != nil {
		t.Fatal(err)
	}
	want = `[{"svids":[{"hint":"h","spiffe_id":"spiffe://a/b","svid":"x.y.z"},{"hint":"","spiffe_id":"spiffe://a/c","svid":"u.v.w"}]},` +
		`{"bundles":{"spiffe://a":"e30=","spiffe://b":"eyJrZXlzIjpbXX0="}}]` + "\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}
