package attest_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/nodeattest/joinkey"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream/attest"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, content string) string {
	t.Helper()
	must(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func TestTokenIsReadWhenItIsNeeded(t *testing.T) {
	dir := t.TempDir()
	file := write(t, filepath.Join(dir, "token"), " first-token\n")
	token := attest.Token{File: file}
	for _, want := range []string{"first-token", "second-token"} {
		got, err := token.Read()
		if err != nil || got != want {
			t.Errorf("read %q, %v; want %q", got, err, want)
		}
		write(t, file, "second-token")
	}
	for name, content := range map[string]string{"empty": " \n", "long": strings.Repeat("secret", 4000)} {
		if _, err := (attest.Token{File: write(t, filepath.Join(dir, name), content)}).Read(); err == nil || strings.Contains(err.Error(), "secretsecret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, err := (attest.Token{}).Read(); got != "" || err != nil {
		t.Errorf("no token: %q, %v", got, err)
	}
}

// The node's own key is made once; the token goes with it until the node has joined.
func TestNodeKeyIsMadeOnce(t *testing.T) {
	dir := t.TempDir()
	var first [32]byte
	for i, test := range []struct {
		attestor *attest.JoinKey
		joined   bool
		token    string
	}{
		{&attest.JoinKey{Dir: dir, Token: attest.Token{Value: "a-token"}}, false, "a-token"},
		{&attest.JoinKey{Dir: dir, Token: attest.Token{Value: "a-token"}}, true, ""},
		{&attest.JoinKey{Dir: dir, Token: attest.Token{File: "no-such-file"}}, false, ""},
		{&attest.JoinKey{Dir: dir}, false, ""},
	} {
		must(t, os.WriteFile(filepath.Join(dir, ".node-key.pem.1.tmp"), nil, 0o600)) // of one that was killed
		proof, err := test.attestor.Begin(t.Context(), upstream.Attempt{Joined: test.joined})
		must(t, err)
		claim, err := joinkey.ParseClaim(proof.Payload)
		must(t, err)
		if i == 0 {
			first = claim.KeyHash
		}
		if claim.KeyHash != first || claim.Token != test.token || strings.Contains(proof.Token, "a-token") {
			t.Errorf("%d: claim %+v, token %q", i, claim, proof.Token)
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	must(t, err)
	left, err := filepath.Glob(filepath.Join(dir, ".*.tmp"))
	must(t, err)
	info, err := os.Stat(files[0])
	must(t, err)
	if len(files) != 1 || len(left) != 0 || info.Mode().Perm() != 0o600 {
		t.Errorf("files %v, left %v, mode %s", files, left, info.Mode())
	}
}

// newCert returns a certificate that signed itself and its key, in PEM.
func newCert(t *testing.T) (cert, key string) {
	t.Helper()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, priv.Public(), priv)
	must(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(priv)
	must(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

func TestX509POPShowsTheFilesInOrder(t *testing.T) {
	dir := t.TempDir()
	leaf, key := newCert(t)
	one, _ := newCert(t)
	two, twoKey := newCert(t)
	x := attest.X509POP{
		CertificatePath: write(t, filepath.Join(dir, "leaf"), leaf+one), PrivateKeyPath: write(t, filepath.Join(dir, "key"), key),
		IntermediatesPath: write(t, filepath.Join(dir, "more"), two),
	}
	must(t, x.Check())
	proof, err := x.Begin(t.Context(), upstream.Attempt{})
	must(t, err)
	var shown struct{ Certificates [][]byte }
	must(t, json.Unmarshal(proof.Payload, &shown))
	for i, want := range []string{leaf, one, two} {
		block, _ := pem.Decode([]byte(want))
		if len(shown.Certificates) != 3 || string(shown.Certificates[i]) != string(block.Bytes) {
			t.Errorf("certificate %d of %d is another", i, len(shown.Certificates))
		}
	}
	write(t, x.PrivateKeyPath, twoKey)
	if err := x.Check(); err == nil || !strings.Contains(err.Error(), x.PrivateKeyPath) || strings.Contains(err.Error(), "BEGIN") {
		t.Errorf("another key: %v", err)
	}
	write(t, x.PrivateKeyPath, key)
	write(t, x.IntermediatesPath, twoKey)
	if err := x.Check(); err == nil || !strings.Contains(err.Error(), "want certificates only") {
		t.Errorf("a key among the certificates: %v", err)
	}
}

func TestK8sPSATReadsTheTokenEachTime(t *testing.T) {
	k := attest.K8sPSAT{Cluster: "c1", TokenPath: filepath.Join(t.TempDir(), "token")}
	if err := k.Check(); err == nil || !strings.Contains(err.Error(), "token_path") {
		t.Errorf("no file: %v", err)
	}
	for _, token := range []string{"eyJh.eyJi.c2ln", "eyJh.eyJi.c2lo"} {
		write(t, k.TokenPath, token+"\n")
		proof, err := k.Begin(t.Context(), upstream.Attempt{})
		must(t, err)
		if want := `{"cluster":"c1","token":"` + token + `"}`; string(proof.Payload) != want || proof.Respond != nil {
			t.Errorf("payload %s, want %s", proof.Payload, want)
		}
	}
}
