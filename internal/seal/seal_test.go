package seal_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/lanyard-mtls/lanyard/internal/seal"
)

func identity(t testing.TB) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func sealed(t testing.TB, content string, to seal.To) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := seal.Encrypt(&out, to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func open(t *testing.T, data []byte, key seal.Key) (string, bool, error) {
	t.Helper()
	r, was, err := seal.Decrypt(bytes.NewReader(data), key)
	if err != nil {
		return "", was, err
	}
	content, err := io.ReadAll(r)
	return string(content), was, err
}

func TestWhatIsSealedIsOpenedByItsKeyOnly(t *testing.T) {
	one, two, other := identity(t), identity(t), identity(t)
	pq, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	content := strings.Repeat("secret", 50_000)
	for name, tc := range map[string]struct {
		to   seal.To
		keys []seal.Key
	}{
		"recipients": {seal.To{Recipients: []string{one.Recipient().String(), two.Recipient().String()}},
			[]seal.Key{{Identities: []byte("# mine\n" + one.String() + "\n")}, {Identities: []byte(other.String() + "\n" + two.String())}}},
		"post-quantum": {seal.To{Recipients: []string{pq.Recipient().String()}}, []seal.Key{{Identities: []byte(pq.String())}}},
		"passphrase":   {seal.Cheap(seal.To{Passphrase: "correct horse"}), []seal.Key{{Passphrase: "correct horse", Identities: []byte(other.String())}}},
	} {
		t.Run(name, func(t *testing.T) {
			data := sealed(t, content, tc.to)
			if bytes.Contains(data, []byte("secretsecret")) {
				t.Fatal("not sealed")
			}
			for _, key := range tc.keys {
				if got, was, err := open(t, data, key); got != content || !was || err != nil {
					t.Errorf("%d bytes, %v, %v", len(got), was, err)
				}
			}
			for _, wrong := range []seal.Key{{Identities: []byte(other.String())}, {Passphrase: "another one"}} {
				if _, _, err := open(t, data, wrong); !errors.Is(err, seal.ErrWrongKey) {
					t.Error(err)
				}
			}
			if _, _, err := open(t, data, seal.Key{}); !errors.Is(err, seal.ErrKeyNeeded) {
				t.Error(err)
			}
			for _, n := range []int{len(data) - 1, len(data) / 2} { // much would be there, but not all
				if _, _, err := open(t, data[:n], tc.keys[0]); err == nil || errors.Is(err, io.EOF) {
					t.Errorf("cut off after %d of %d: %v", n, len(data), err)
				}
			}
		})
	}
}

func TestArmorAndPlainFilesAreTold(t *testing.T) {
	id := identity(t)
	var armored bytes.Buffer
	w := armor.NewWriter(&armored)
	if _, err := w.Write(sealed(t, "content", seal.To{Recipients: []string{id.Recipient().String()}})); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got, was, err := open(t, armored.Bytes(), seal.Key{Identities: []byte(id.String())}); got != "content" || !was || err != nil {
		t.Errorf("%q, %v, %v", got, was, err)
	}
	for _, plain := range []string{"", "a", strings.Repeat("plain", 1000)} {
		if got, was, err := open(t, []byte(plain), seal.Key{}); got != plain || was || err != nil {
			t.Errorf("%d bytes, %v, %v", len(got), was, err)
		}
	}
}

func TestBadKeysAreNamedAndNeverRepeated(t *testing.T) {
	id := identity(t)
	for want, to := range map[string]seal.To{
		"nobody could open it: name a recipient, age1…, or give a passphrase":             {},
		"a file is sealed for recipients or by a passphrase, not for both: take one away": {Recipients: []string{id.Recipient().String()}, Passphrase: "hunter22"},
		"the passphrase is shorter than 8 characters":                                     {Passphrase: "hunter2"},
		"that recipient is a secret key: give the public one, age1…":                      {Recipients: []string{id.String()}},
		"recipient \"nobody\" is no public key of age: want age1…":                        {Recipients: []string{"nobody"}},
		"recipient \"age1x\\nage1y\" is no public key of age: want age1…":                 {Recipients: []string{"age1x\nage1y"}},
	} {
		if err := to.Check(); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	data := sealed(t, "x", seal.To{Recipients: []string{id.Recipient().String()}})
	for _, bad := range []string{"hunter2 hunter2 hunter2", id.String() + "x", strings.Repeat("# comment\n", 8_000)} {
		if _, _, err := open(t, data, seal.Key{Identities: []byte(bad)}); err == nil || strings.Contains(err.Error(), bad[10:20]) {
			t.Errorf("%v", err)
		}
	}
}

func TestAHeaderWithoutEndIsRefused(t *testing.T) {
	header := "age-encryption.org/v1\n-> X25519 YWFh\n" + strings.Repeat(strings.Repeat("A", 64)+"\n", 100_000)
	_, _, err := open(t, []byte(header), seal.Key{Identities: []byte(identity(t).String())})
	if err == nil || !strings.Contains(err.Error(), "its header is too large") {
		t.Error(err)
	}
}

// Whoever could name the cost of a passphrase could name all memory.
func TestACostlyPassphraseIsRefused(t *testing.T) {
	header := "age-encryption.org/v1\n-> scrypt bm9ub25vbm9ub25vbm9ubw 30\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n--- AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n" + strings.Repeat("x", 100)
	if _, _, err := open(t, []byte(header), seal.Key{Passphrase: "correct horse"}); err == nil || !strings.Contains(err.Error(), "scrypt work factor too large") {
		t.Error(err)
	}
}

func FuzzDecrypt(f *testing.F) {
	const secret = "AGE-SECRET-KEY-184JMZMVQH3E6U0PSL869004Y3U2NYV7R30EU99CSEDNPH02YUVFSZW44VU"
	id, err := age.ParseX25519Identity(secret)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed(f, "content", seal.To{Recipients: []string{id.Recipient().String()}}))
	f.Add([]byte("age-encryption.org/v1\n-> X25519 YWFh\n\n--- AAAA\n"))
	f.Add([]byte("-----BEGIN AGE ENCRYPTED FILE-----\nYWdl\n-----END AGE ENCRYPTED FILE-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, was, err := seal.Decrypt(bytes.NewReader(data), seal.Key{Identities: []byte(secret)})
		if err != nil {
			return
		}
		got, err := io.ReadAll(r)
		if err == nil && !was && !bytes.Equal(got, data) {
			t.Error("a plain file came out changed")
		}
	})
}
