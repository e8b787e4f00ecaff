package hello

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// recorder keeps what is read from a connection.
type recorder struct {
	net.Conn
	read bytes.Buffer
}

func (r *recorder) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	r.read.Write(b[:n])
	return n, err
}

// handshake returns the bytes a server sent. A byte of data follows the handshake, so that tickets have come.
func handshake(t testing.TB, server, client *tls.Config) []byte {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	go func() {
		conn := tls.Server(b, server)
		_, _ = conn.Write([]byte("x")) // an error shows at the client
		b.Close()
	}()
	seen := &recorder{Conn: a}
	conn := tls.Client(seen, client)
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return seen.read.Bytes()
}

func serverConfig(t testing.TB) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"a"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

func TestReadServer(t *testing.T) {
	server := serverConfig(t)
	server.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256}
	client := func(change func(*tls.Config)) *tls.Config {
		c := &tls.Config{InsecureSkipVerify: true, ServerName: "a"}
		change(c)
		return c
	}
	cache := tls.NewLRUClientSessionCache(1)
	resuming := client(func(c *tls.Config) { c.ClientSessionCache = cache })
	for _, test := range []struct {
		name   string
		client *tls.Config
		want   string
	}{
		{"full", resuming, "TLS 1.3, X25519, TLS_AES_128_GCM_SHA256, full"},
		{"resumed", resuming, "TLS 1.3, X25519, TLS_AES_128_GCM_SHA256, resumed"},
		{"retried", client(func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP384, tls.CurveP256} }),
			"TLS 1.3, CurveP256, TLS_AES_128_GCM_SHA256, full"},
		{"1.2", client(func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384}
		}), "TLS 1.2, CurveID(0), TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, full"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := ReadServer(bytes.NewReader(handshake(t, server, test.client)))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestReadServerRefusesWhatIsNoTLS(t *testing.T) {
	for name, wire := range map[string]string{
		"http":  "HTTP/1.1 400 Bad Request\r\n\r\n",
		"alert": "\x15\x03\x03\x00\x02\x02\x28",
		"other": "\x16\x03\x03\x00\x04\x01\x00\x00\x00",
	} {
		if got, err := ReadServer(bytes.NewReader([]byte(wire))); err == nil {
			t.Errorf("%s: read as %v", name, got)
		}
	}
	if _, err := ReadServer(bytes.NewReader(nil)); !errors.Is(err, io.EOF) {
		t.Errorf("nothing: %v, want the reader's end", err)
	}
}

func FuzzReadServer(f *testing.F) {
	wire := handshake(f, serverConfig(f), &tls.Config{InsecureSkipVerify: true})
	f.Add(wire)
	f.Add(wire[:60])
	f.Add([]byte("\x16\x03\x03\x00\x04\x02\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, wire []byte) {
		got, err := ReadServer(bytes.NewReader(wire))
		if err == nil && got.String() == "" {
			t.Error("no words")
		}
	})
}
