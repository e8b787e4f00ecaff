package upstream

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/internal/testca"
)

func sampleState(t testing.TB, td string) (data, keys []byte) {
	t.Helper()
	ca := testca.New(t, td)
	svid := ca.SVID(t, "spiffe://"+td+"/spire/agent/join_token/t")
	d, err := (dataOf(svid.Certificates, ca.Bundle().X509Authorities())).encode()
	if err != nil {
		t.Fatal(err)
	}
	k, err := keysOf(svid.PrivateKey.(*ecdsa.PrivateKey)).encode()
	if err != nil {
		t.Fatal(err)
	}
	return d, k
}

func dataOf(svid, bundle []*x509.Certificate) data { return data{SVID: svid, Bundle: bundle} }

func keysOf(key *ecdsa.PrivateKey) keys { return keys{slotA: key} }

func TestDamagedStateIsNamedAndKept(t *testing.T) {
	td := spiffeid.RequireTrustDomainFromString("example.org")
	goodData, goodKeys := sampleState(t, "example.org")
	foreignData, foreignKeys := sampleState(t, "other.org")
	_, otherKeys := sampleState(t, "example.org")
	for name, test := range map[string]struct {
		data, keys []byte
		want       string
	}{
		"good":            {goodData, goodKeys, ""},
		"data cut short":  {goodData[:100], goodKeys, "agent-data.json is damaged"},
		"data not PEM":    {[]byte(`{"svid":["anVuaw=="]}`), goodKeys, "agent-data.json is damaged"},
		"empty data":      {[]byte{}, goodKeys, "agent-data.json is damaged"},
		"keys cut short":  {goodData, goodKeys[:100], "keys.json is damaged"},
		"keys not PKCS 8": {goodData, []byte(`{"keys":{"agent-svid-A":"c2VjcmV0"}}`), "keys.json is damaged"},
		"another key":     {goodData, otherKeys, "has no key in keys.json"},
		"no keys":         {goodData, nil, "has no key in keys.json"},
		"another domain":  {foreignData, foreignKeys, `of another trust domain than "example.org"`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, dataFile, test.data)
			write(t, dir, keysFile, test.keys)
			_, err := Open(Config{TrustDomain: td, DataDir: dir, ServerAddress: "127.0.0.1:1", Attestor: &stubAttestor{}})
			if test.want == "" {
				if err != nil {
					t.Errorf("not opened: %v", err)
				}
			} else if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), dir) {
				t.Errorf("error %v, want %s", err, test.want)
			} else if strings.Contains(err.Error(), "c2VjcmV0") || strings.Contains(err.Error(), "secret") {
				t.Errorf("the error repeats a secret: %v", err)
			}
			for file, want := range map[string][]byte{dataFile: test.data, keysFile: test.keys} {
				if got, _ := os.ReadFile(filepath.Join(dir, file)); !bytes.Equal(got, want) {
					t.Errorf("%s was changed", file)
				}
			}
		})
	}
}

func write(t *testing.T, dir, name string, content []byte) {
	t.Helper()
	if content == nil {
		return
	}
	if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Killed while writing, an agent leaves temporary files with its key.
func TestLeftoversOfAKillAreRemoved(t *testing.T) {
	dir := t.TempDir()
	d, k := sampleState(t, "example.org")
	for name, content := range map[string][]byte{dataFile: d, keysFile: k, ".keys.json.123.tmp": k[:20], ".agent-data.json.9.tmp": d} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := openIdentity(dir, spiffeid.RequireTrustDomainFromString("example.org"), identityOptions{}); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, ".*.tmp"))
	if err != nil || len(files) > 0 {
		t.Errorf("left %v, %v", files, err)
	}
}

func TestUnreadableStateIsNotAbsent(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, dataFile), 0o700); err != nil {
		t.Fatal(err)
	}
	td := spiffeid.RequireTrustDomainFromString("example.org")
	if _, err := Open(Config{TrustDomain: td, DataDir: dir, Attestor: &stubAttestor{}}); err == nil || !strings.Contains(err.Error(), dataFile) {
		t.Errorf("opened: %v", err)
	}
}

// What is written is read back as it was.
func FuzzDecodeData(f *testing.F) {
	d, _ := sampleState(f, "example.org")
	f.Add(d)
	f.Add([]byte(`{"svid":null,"bundle":[],"reattestable":true,"bootstrap_use":1,"connection_attempts":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := decodeData(b)
		if err != nil {
			return
		}
		again, err := d.encode()
		if err != nil {
			t.Fatal(err)
		}
		d2, err := decodeData(again)
		if err != nil || len(d2.SVID) != len(d.SVID) || len(d2.Bundle) != len(d.Bundle) || d2.rest != d.rest {
			t.Errorf("%v: %+v", err, d2)
		}
	})
}

func FuzzDecodeKeys(f *testing.F) {
	_, k := sampleState(f, "example.org")
	f.Add(k)
	f.Add([]byte(`{"keys":{"a":""}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		ks, err := decodeKeys(b)
		if err != nil {
			return
		}
		for slot, key := range ks {
			if got := ks.slotOf(key.Public()); got == "" {
				t.Errorf("key %q is not found by its public key", slot)
			}
		}
	})
}

func FuzzParseBundle(f *testing.F) {
	ca := testca.New(f, "example.org")
	seed, err := proto.Marshal(&types.Bundle{TrustDomain: "example.org", X509Authorities: []*types.X509Certificate{{Asn1: ca.Cert.Raw}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		var p types.Bundle
		if proto.Unmarshal(b, &p) != nil {
			return
		}
		if bundle, err := parseBundle(&p); err == nil && bundle.Empty() {
			t.Error("an empty bundle")
		}
	})
}

func TestHalfLifeIsCountedFromReceipt(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := testca.New(t, "example.org")
	cert := ca.Sign(t, "spiffe://example.org/a", &key.PublicKey)
	received := cert.NotBefore.Add(20 * 60 * 1e9)
	if got, want := halfLife(cert, received), received.Add(cert.NotAfter.Sub(received)/2); !got.Equal(want) {
		t.Errorf("got %s, want %s", got, want)
	}
	early := cert.NotBefore.Add(-60 * 1e9)
	if got, want := halfLife(cert, early), cert.NotBefore.Add(cert.NotAfter.Sub(cert.NotBefore)/2); !got.Equal(want) {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestRenewalsAreSpread(t *testing.T) {
	ca := testca.New(t, "example.org")
	now := time.Now()
	at := make(map[time.Duration]bool)
	for range 5 {
		id, err := openIdentity(t.TempDir(), ca.TrustDomain, identityOptions{})
		if err != nil {
			t.Fatal(err)
		}
		key, err := id.joinKey(false)
		if err != nil {
			t.Fatal(err)
		}
		cert := ca.Sign(t, "spiffe://example.org/spire/agent/a", key.Public(), testca.Lifetime(now.Add(-10*time.Second), now.Add(time.Hour)))
		if err := id.setSVID([]*x509.Certificate{cert}, false, now); err != nil {
			t.Fatal(err)
		}
		wait := id.renewal().Sub(now.Round(0))
		if wait < 26*time.Minute || wait > 34*time.Minute {
			t.Errorf("renewal after %s of an hour", wait)
		}
		at[wait] = true
	}
	if len(at) == 1 {
		t.Error("all at once")
	}
}

// That an SVID has expired is known by this machine's clock alone, which may be
// wrong: what is deleted then would be missing when the clock is right again.
func TestExpiredSVIDIsNotDeleted(t *testing.T) {
	ca := testca.New(t, "example.org")
	for name, test := range map[string]struct {
		end  time.Duration // of the SVID, from now
		kept bool
	}{"by this clock": {-time.Minute, true}, "by the issuer's": {time.Hour, false}} {
		t.Run(name, func(t *testing.T) {
			svid := ca.SVID(t, "spiffe://example.org/spire/agent/a", testca.Lifetime(time.Now().Add(-time.Hour), time.Now().Add(test.end)))
			d, err := dataOf(svid.Certificates, ca.Bundle().X509Authorities()).encode()
			if err != nil {
				t.Fatal(err)
			}
			k, err := keysOf(svid.PrivateKey.(*ecdsa.PrivateKey)).encode()
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			write(t, dir, dataFile, d)
			write(t, dir, keysFile, k)
			c, err := Open(Config{TrustDomain: ca.TrustDomain, DataDir: dir, Attestor: &stubAttestor{}})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.drop(t.Context(), &RefusedError{ID: svid.ID, Reason: types.PermissionDeniedDetails_AGENT_EXPIRED}); err == nil {
				t.Error("goes on without a token")
			}
			again, err := openIdentity(dir, ca.TrustDomain, identityOptions{})
			if err != nil || (again.svid != nil) != test.kept {
				t.Errorf("on disk: %v, %v; want kept: %t", again.svid, err, test.kept)
			}
		})
	}
}

// stubAttestor could join, once.
type stubAttestor struct{}

func (*stubAttestor) Kind() (string, bool) { return "join_token", false }
func (*stubAttestor) Check() error         { return nil }
func (*stubAttestor) Begin(context.Context, Attempt) (Proof, error) {
	return Proof{}, ErrNoIdentity
}
