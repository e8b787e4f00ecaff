package agentcli

import (
	"bytes"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/testca"
)

// answer is what an agent gives for the ID, signed by signer and shown with the bundle of shown.
func answer(t testing.TB, id string, signer, shown *testca.CA) *workload.X509SVIDResponse {
	svid := signer.SVID(t, id)
	chain, key, err := svid.MarshalRaw()
	if err != nil {
		t.Fatal(err)
	}
	return &workload.X509SVIDResponse{
		Svids:            []*workload.X509SVID{{SpiffeId: id, X509Svid: chain, X509SvidKey: key, Bundle: shown.Cert.Raw, Hint: "first"}},
		FederatedBundles: map[string][]byte{"spiffe://other.test": signer.Cert.Raw},
	}
}

func TestPrintSVIDsIsSPIREsText(t *testing.T) {
	from := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	ca := &x509.Certificate{NotBefore: from, NotAfter: from.Add(time.Hour)}
	var b bytes.Buffer
	printSVIDs(&b, []*svid{{
		id: "spiffe://a/b", hint: "h", chain: []*x509.Certificate{ca, ca}, bundle: []*x509.Certificate{ca},
		federated: []federated{{"spiffe://c", []*x509.Certificate{ca}}},
	}}, 2*time.Millisecond)
	const early, late = "2026-01-02 03:04:05 +0000 UTC", "2026-01-02 04:04:05 +0000 UTC"
	want := "Received 1 svid after 2ms\n\nSPIFFE ID:\t\tspiffe://a/b\nHint:\t\t\th\nSVID Valid After:\t" + early + "\nSVID Valid Until:\t" + late +
		"\nIntermediate #1 Valid After:\t" + early + "\nIntermediate #1 Valid Until:\t" + late +
		"\nCA #1 Valid After:\t" + early + "\nCA #1 Valid Until:\t" + late +
		"\n[spiffe://c] CA #1 Valid After:\t" + early + "\n[spiffe://c] CA #1 Valid Until:\t" + late + "\n\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}

func TestParseRefusesWhatWouldNotWork(t *testing.T) {
	ca, stranger := testca.New(t, "td.test"), testca.New(t, "td.test")
	if _, err := parse(answer(t, "spiffe://td.test/a", ca, ca)); err != nil {
		t.Error(err)
	}
	if _, err := parse(answer(t, "spiffe://td.test/a", ca, stranger)); err == nil || !strings.HasPrefix(err.Error(), "SVID of spiffe://td.test/a: ") {
		t.Errorf("an SVID of another authority: %v", err)
	}
	if _, err := parse(&workload.X509SVIDResponse{}); err == nil {
		t.Error("an empty answer was taken")
	}
}

func FuzzParse(f *testing.F) {
	ca := testca.New(f, "td.test")
	seed, err := proto.Marshal(answer(f, "spiffe://td.test/a", ca, ca))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		resp := new(workload.X509SVIDResponse)
		if proto.Unmarshal(data, resp) != nil {
			return
		}
		svids, err := parse(resp)
		if err != nil {
			return
		}
		printSVIDs(&bytes.Buffer{}, svids, 0)
		for _, s := range svids {
			if len(s.chain) == 0 || len(s.bundle) == 0 || len(s.key) == 0 {
				t.Fatalf("an SVID that can't be used: %+v", s)
			}
		}
	})
}
