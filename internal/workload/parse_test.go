package workload

import (
	"strings"
	"testing"
	"time"

	workloadpb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/testca"
)

func TestParseAddr(t *testing.T) {
	good := map[string]Addr{
		"unix:///run/a.sock":   {"unix", "/run/a.sock"},
		"unix:/run/a.sock":     {"unix", "/run/a.sock"},
		"tcp://127.0.0.1:8000": {"tcp", "127.0.0.1:8000"},
		"tcp://[::1]:8000":     {"tcp", "[::1]:8000"},
	}
	for in, want := range good {
		if got, err := ParseAddr(in); err != nil || got != want {
			t.Errorf("ParseAddr(%q) = %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"/run/a.sock", "unix://run/a.sock", "unix:run/a.sock", "unix:", "unix:///a?b", "unix:///a#b",
		"tcp://localhost:80", "tcp://127.0.0.1", "tcp://127.0.0.1:0", "tcp://127.0.0.1:80/", "tcp:127.0.0.1:80",
		"tcp://u@127.0.0.1:80", "http://127.0.0.1:80", "%"} {
		if got, err := ParseAddr(in); err == nil || !strings.Contains(err.Error(), "use unix:///PATH or tcp://IP:PORT") {
			t.Errorf("ParseAddr(%q) = %v, %v", in, got, err)
		}
	}
	t.Setenv(AddrEnv, "unix:///env.sock")
	if got, err := ParseAddr(""); err != nil || got.Address != "/env.sock" {
		t.Errorf("from the environment: %v, %v", got, err)
	}
	t.Setenv(AddrEnv, "")
	if _, err := ParseAddr(""); err != ErrNoAddr {
		t.Errorf("without any: %v", err)
	}
}

func TestBackoff(t *testing.T) {
	b := backoff{min: 100 * time.Millisecond, max: 3 * time.Second}
	for i, want := range []time.Duration{0, 100, 200, 400, 800, 1600, 3000, 3000} {
		want *= time.Millisecond
		if got := b.next(); got < want*8/10 || got > want*12/10 {
			t.Errorf("delay %d is %v, want about %v", i, got, want)
		}
	}
	b.failures = 1 << 40
	if got := b.next(); got > 4*time.Second {
		t.Errorf("delay after many failures: %v", got)
	}
	b.succeeded(time.Second)
	if b.next() == 0 {
		t.Error("a short-lived stream reset the delay")
	}
	b.succeeded(3 * time.Second)
	if b.next() != 0 {
		t.Error("the reconnect after a long-lived stream is not immediate")
	}
}

func TestDuplicateHints(t *testing.T) {
	ca := testca.New(t, "one.test")
	resp := response(t, ca, ca.SVID(t, "spiffe://one.test/a"), ca.SVID(t, "spiffe://one.test/b"), ca.SVID(t, "spiffe://one.test/c"))
	resp.Svids[0].Hint, resp.Svids[1].Hint = "in", "in"
	c, err := parseResponse(resp)
	if err != nil || len(c.SVIDs) != 2 || c.SVIDs[1].ID.Path() != "/c" {
		t.Errorf("%v, %v", c, err)
	}
}

// An own trust domain's bundle comes with the SVID; nobody may widen it by
// federating with the same name.
func TestFederatedBundleNeverReplacesTheOwn(t *testing.T) {
	ca, impostor := testca.New(t, "one.test"), testca.New(t, "one.test")
	resp := response(t, ca, ca.SVID(t, "spiffe://one.test/a"))
	resp.FederatedBundles = map[string][]byte{"spiffe://one.test": impostor.Cert.Raw, "one.test": impostor.Cert.Raw, "two.test": nil}
	c, err := parseResponse(resp)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Bundles) != 1 || c.Bundles[ca.TrustDomain].HasX509Authority(impostor.Cert) {
		t.Errorf("bundles: %v", c.Bundles)
	}
}

func response(t testing.TB, ca *testca.CA, svids ...*x509svid.SVID) *workloadpb.X509SVIDResponse {
	t.Helper()
	resp := &workloadpb.X509SVIDResponse{}
	for _, svid := range svids {
		certs, key, err := svid.MarshalRaw()
		if err != nil {
			t.Fatal(err)
		}
		resp.Svids = append(resp.Svids, &workloadpb.X509SVID{SpiffeId: svid.ID.String(), X509Svid: certs, X509SvidKey: key, Bundle: ca.Cert.Raw})
	}
	return resp
}

func FuzzParseResponse(f *testing.F) {
	ca := testca.New(f, "one.test")
	good, err := proto.Marshal(response(f, ca, ca.SVID(f, "spiffe://one.test/a")))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte{})
	f.Add(good[:len(good)/2])
	f.Fuzz(func(t *testing.T, data []byte) {
		var resp workloadpb.X509SVIDResponse
		if proto.Unmarshal(data, &resp) != nil {
			return
		}
		c, err := parseResponse(&resp)
		if err != nil {
			return
		}
		if len(c.SVIDs) == 0 {
			t.Fatal("accepted an answer without an SVID")
		}
		for _, svid := range c.SVIDs {
			if b := c.Bundles[svid.ID.TrustDomain()]; b == nil || b.Empty() {
				t.Fatalf("no bundle for %s", svid.ID)
			}
			if svid.PrivateKey == nil || len(svid.Certificates) == 0 {
				t.Fatalf("half an SVID: %s", svid.ID)
			}
		}
		for td, b := range c.Bundles {
			if b.TrustDomain() != td {
				t.Fatalf("bundle of %s filed under %s", b.TrustDomain(), td)
			}
		}
	})
}

func FuzzParseAddr(f *testing.F) {
	for _, s := range []string{"unix:///a", "unix:/a", "tcp://1.2.3.4:5", "tcp://[::1%25lo]:5", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if s == "" {
			return
		}
		a, err := ParseAddr(s)
		if err != nil {
			return
		}
		if a.Address == "" || (a.Network == "unix" && a.Address[0] != '/') {
			t.Fatalf("%q gave %v", s, a)
		}
	})
}
