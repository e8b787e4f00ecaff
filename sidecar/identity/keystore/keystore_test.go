package keystore

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/tls"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Real files of the JDK and of openssl; testdata/make.sh made them.
func read(t testing.TB, name string) []byte {
	t.Helper()
	data, err := Read(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(name, err)
	}
	return data
}

func TestRealKeystores(t *testing.T) {
	tests := map[string]struct{ kind, uri string }{
		"ec.jceks":      {"ec", "spiffe://one.test/ec"},
		"rsa.jceks":     {"rsa", "spiffe://one.test/rsa"},
		"ed25519.jceks": {"ed25519", "spiffe://one.test/ed25519"},
		"ec.jks":        {"ec", "spiffe://one.test/ec"},
		"ec.p12":        {"ec", "spiffe://one.test/ec"},
		"rsa.p12":       {"rsa", "spiffe://one.test/rsa"},
		"legacy.p12":    {"ec", "spiffe://one.test/ec"},
		"ec.pem":        {"ec", "spiffe://one.test/ec"},
		"rsa.pem":       {"rsa", "spiffe://one.test/rsa"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			data := read(t, name)
			for _, path := range []string{name, "anything"} { // by extension and by content
				if path == "anything" && (strings.HasSuffix(name, ".pem") || name == "rsa.jceks") {
					continue // the former begin with openssl's bag attributes, the latter takes its time
				}
				c, err := Parse(path, data, "changeit")
				if err != nil {
					t.Fatal(path, err)
				}
				if got := c.Certificates[0].URIs[0].String(); got != tt.uri {
					t.Errorf("leaf %s, want %s", got, tt.uri)
				}
				if kindOf(c.Key) != tt.kind {
					t.Errorf("key %T, want %s", c.Key, tt.kind)
				}
				if pub, ok := c.Certificates[0].PublicKey.(interface{ Equal(any) bool }); ok && !pub.Equal(c.Key.Public()) {
					t.Error("the key is not the certificate's")
				}
			}
		})
	}
}

func kindOf(key any) string {
	switch key.(type) {
	case *ecdsa.PrivateKey:
		return "ec"
	case *rsa.PrivateKey:
		return "rsa"
	case ed25519.PrivateKey:
		return "ed25519"
	}
	return fmt.Sprintf("%T", key)
}

func TestChainOfAJavaKeystore(t *testing.T) {
	c, err := Parse("chain.jceks", read(t, "chain.jceks"), "changeit")
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Certificates) != 2 || c.Certificates[0].Subject.CommonName != "leaf" || c.Certificates[1].Subject.CommonName != "ca" {
		t.Errorf("chain of %d", len(c.Certificates))
	}
	if err := c.Certificates[0].CheckSignatureFrom(c.Certificates[1]); err != nil {
		t.Error(err)
	}
}

func TestTraditionalKeys(t *testing.T) {
	for _, name := range []string{"ec-traditional.pem", "rsa-traditional.pem"} {
		if c, err := ParsePEM(read(t, name)); err != nil || c.Key == nil {
			t.Errorf("%s: %v, %v", name, c.Key, err)
		}
	}
}

func TestUnusableKeystores(t *testing.T) {
	ec := read(t, "ec.jceks")
	pair := append(read(t, "ec.pem"), read(t, "rsa.pem")...)
	tests := []struct {
		path     string
		data     []byte
		password string
		want     string
	}{
		{"x.jceks", ec, "wrong", "the password is wrong, or the file is damaged"},
		{"x.jks", read(t, "ec.jks"), "wrong", "the password is wrong"},
		{"x.p12", read(t, "ec.p12"), "wrong", "the password is wrong"},
		{"x.jceks", ec[:len(ec)-1], "changeit", "damaged"},
		{"x.jceks", ec[:20], "changeit", "cut off"},
		{"x.jceks", read(t, "ec.p12"), "changeit", "no Java keystore"},
		{"x.p12", ec, "changeit", "as PKCS#12"},
		{"x.jceks", read(t, "keypass.jceks"), "changeit", "keytool -keypasswd"},
		{"x.jceks", read(t, "two.jceks"), "changeit", `2 private keys, "one", "two": keep one, with keytool -delete`},
		{"x.jceks", read(t, "none.jceks"), "changeit", "there is no private key"},
		{"x.jceks", read(t, "secret.jceks"), "changeit", `"aes" is a secret key`},
		{"x.pem", read(t, "encrypted.pem"), "", "openssl pkey -in FILE -out NEWFILE"},
		{"x.pem", read(t, "encrypted-traditional.pem"), "", "openssl pkey -in FILE -out NEWFILE"},
		{"x.pem", read(t, "ca.p7b.pem"), "", "openssl pkcs7 -print_certs"},
		{"x.pem", pair, "", "two private keys"},
		{"x.pem", []byte("-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n"), "", "certificate 1: "},
		{"x.pem", []byte("-----BEGIN PRIVATE KEY-----\naGVsbG8=\n-----END PRIVATE KEY-----\n"), "", "neither PKCS #8, PKCS #1 nor SEC 1"},
		{"x", []byte("hello"), "", "no known format"},
		{"x", nil, "", "no known format"},
	}
	for _, tt := range tests {
		_, err := Parse(tt.path, tt.data, tt.password)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s (%d bytes): %v, want %q", tt.path, len(tt.data), err, tt.want)
		}
		if err != nil && (strings.Contains(err.Error(), "changeit") || strings.Contains(err.Error(), "\n")) {
			t.Errorf("error %q", err)
		}
	}
}

// What Go's decoder can't read it skips: a list of authorities would be shorter than what was meant.
func TestDamagedPEM(t *testing.T) {
	whole := string(read(t, "ec.pem"))
	block := func(kind string) string {
		end := "-----END " + kind + "-----\n"
		from := whole[strings.Index(whole, "-----BEGIN "+kind):]
		return from[:strings.Index(from, end)+len(end)]
	}
	key, cert := block("PRIVATE KEY"), block("CERTIFICATE")
	for name, tt := range map[string]struct{ data, want string }{
		"cut off":              {cert + cert[:len(cert)-20], "1 of 2 PEM blocks is damaged"},
		"no base64":            {cert[:80] + "!" + cert[80:] + cert, "1 of 2 PEM blocks is damaged"},
		"other end":            {strings.Replace(cert, "END CERT", "END XCERT", 1) + cert, "1 of 2 PEM blocks is damaged"},
		"two":                  {cert[:80] + "!" + cert[80:] + key[:90], "2 of 2 PEM blocks are damaged"},
		"Windows":              {strings.ReplaceAll(cert+key, "\n", "\r\n"), ""},
		"text between":         {"Bag Attributes\n" + cert + "a comment about -----BEGIN CERTIFICATE-----\n" + key + "end", ""},
		"no line end":          {strings.TrimSpace(cert + key), ""},
		"spaces after a begin": {strings.Replace(cert, "CERTIFICATE-----", "CERTIFICATE-----  ", 1), ""},
	} {
		c, err := ParsePEM([]byte(tt.data))
		if tt.want == "" && (err != nil || len(c.Certificates) != 1) || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %d certificates, %v, want %q", name, len(c.Certificates), err, tt.want)
		}
	}
}

func TestDetect(t *testing.T) {
	tests := []struct {
		path, data string
		want       Format
	}{
		{"a.PEM", "", PEM}, {"a.crt", "", PEM}, {"a.p7b", "", PEM}, {"a.p7c", "", PEM},
		{"a.p12", "", PKCS12}, {"a.pfx", "", PKCS12}, {"a.jceks", "", JCEKS}, {"a.JKS", "", JCEKS}, {"a.der", "", DER},
		{"a", "\xce\xce\xce\xce", JCEKS}, {"a", "\xfe\xed\xfe\xed", JCEKS}, {"a", "-----BEGIN", PEM}, {"a.key", "CONNECTED", PEM},
		{"a", "\x30\x82\x03\x10", DER}, {"a", "\x30\x82\x08\x10", PKCS12}, {"a", "\x30\x80\x08\x10", ""}, {"a", "---", ""},
	}
	for _, tt := range tests {
		if got, err := Detect(tt.path, []byte(tt.data)); got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("Detect(%q, %q) = %q, %v; want %q", tt.path, tt.data, got, err, tt.want)
		}
	}
	if c, err := Parse("a.der", read(t, "ca.der"), ""); err != nil || len(c.Certificates) != 1 {
		t.Error(c, err)
	}
}

func TestReadIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "huge.pem")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(maxSize + 1); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); err == nil || !strings.Contains(err.Error(), "larger than 50 MB") {
		t.Error(err)
	}
	if _, err := Read(path + "x"); err == nil || strings.Contains(err.Error(), path) || !os.IsNotExist(err) {
		t.Error(err)
	}
}

// Where both halves of a salt are equal, the JDK reverses one. This is what its SunJCE provider (17) made of the text "lanyard"
// with salt 01020304 01020304, password "changeit" and 1,000 iterations.
func TestEqualHalvesOfASalt(t *testing.T) {
	data, err := hex.DecodeString("d5493d922bc3fd31")
	if err != nil {
		t.Fatal(err)
	}
	params, err := asn1.Marshal(struct {
		Salt       []byte
		Iterations int
	}{[]byte{1, 2, 3, 4, 1, 2, 3, 4}, 1000})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := unprotectJCE(params, data, "changeit"); string(got) != "lanyard" {
		t.Errorf("%q, %v", got, err)
	}
}

// FuzzJCEKS gives the parser stores whose hash is right, as it reads no others further.
func FuzzJCEKS(f *testing.F) {
	for _, name := range []string{"ec.jceks", "ec.jks", "chain.jceks", "two.jceks", "secret.jceks"} {
		data := read(f, name)
		f.Add(data[:len(data)-sha1.Size])
	}
	f.Add(binary.BigEndian.AppendUint32(nil, magicJCEKS))
	f.Fuzz(func(t *testing.T, body []byte) {
		data := append(body[:len(body):len(body)], hash1(wide("changeit"), []byte(hashConstant), body)...)
		c, err := parseJCEKS(data, "changeit")
		if err == nil && c.Key == nil {
			t.Fatal("no key and no error")
		}
	})
}

func FuzzPEM(f *testing.F) {
	for _, name := range []string{"ec.pem", "ec-traditional.pem", "encrypted.pem", "encrypted-traditional.pem", "ca.p7b.pem"} {
		f.Add(read(f, name))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParsePEM(data)
		if err == nil && c.Key != nil {
			// Whatever is taken must do in a handshake.
			if kindOf(c.Key) != "ec" && kindOf(c.Key) != "rsa" && kindOf(c.Key) != "ed25519" {
				t.Fatalf("a key of type %T", c.Key)
			}
			_ = tls.Certificate{PrivateKey: c.Key}
		}
	})
}
