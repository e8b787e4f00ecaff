package pair

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/lanyard-mtls/lanyard/bench/load"
)

// TestMain lets the test binary serve as the backend, and as a proxy made to order.
func TestMain(m *testing.M) {
	var err error
	switch os.Getenv("LANYARD_BENCH_ROLE") {
	case "":
		os.Exit(m.Run())
	case "backend":
		err = load.ServeBackend(os.Stdin, os.Stdout)
	default:
		err = serveProxy([]byte(os.Getenv("LANYARD_BENCH_ROLE")))
	}
	if err != nil {
		panic(err)
	}
}

// order is a proxy to be, with what is wrong with it.
type order struct {
	Side
	TrustsAll bool // takes clients without a certificate, and any server
	Group     tls.CurveID
	Max       uint16 // version
	Resumes   bool
	Garbles   bool // changes a byte in the middle of much
}

func serveProxy(text []byte) error {
	var o order
	if err := json.Unmarshal(text, &o); err != nil {
		return err
	}
	cert, err := tls.LoadX509KeyPair(o.Cert.Cert, o.Cert.Key)
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(o.Cert.CA)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	config := &tls.Config{
		Certificates: []tls.Certificate{cert}, RootCAs: pool, ClientCAs: pool, ServerName: "localhost", ClientAuth: tls.RequireAndVerifyClientCert,
		CurvePreferences: []tls.CurveID{o.Group}, MaxVersion: o.Max, InsecureSkipVerify: o.TrustsAll,
	}
	if o.TrustsAll {
		config.ClientAuth = tls.NoClientCert
	}
	if o.Resumes {
		config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	}
	l, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go o.join(conn, config)
	}
}

func (o order) join(in net.Conn, config *tls.Config) {
	defer in.Close()
	out, err := net.Dial("tcp", o.Target)
	if err != nil {
		return
	}
	defer out.Close()
	if o.Server {
		in = tls.Server(in, config)
	} else {
		out = tls.Client(out, config)
	}
	go func() {
		_, _ = io.Copy(out, in)
		out.Close()
	}()
	buf := make([]byte, 32<<10)
	for sum := 0; ; {
		n, err := out.Read(buf)
		if err != nil {
			return
		}
		if o.Garbles && sum < 1_000_000 && sum+n >= 1_000_000 {
			buf[0]++
		}
		sum += n
		if _, err := in.Write(buf[:n]); err != nil {
			return
		}
	}
}

// madeToOrder is a peer that is this test binary.
func madeToOrder(t *testing.T, o order) *Peer {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &Peer{Name: "proxy", command: func(s Side) (*exec.Cmd, error) {
		o.Side = s
		text, err := json.Marshal(o)
		cmd := exec.Command(self)
		cmd.Env = []string{"LANYARD_BENCH_ROLE=" + string(text)}
		return cmd, err
	}}
}

func newBed(t *testing.T) *Bed {
	t.Helper()
	dir := t.TempDir()
	certs, err := NewCerts(dir)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("LANYARD_BENCH_ROLE", "backend")
	backend, err := load.Start(context.Background(), self) // the test's own context ends before its cleanup
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := backend.Stop(); err != nil {
			t.Error(err)
		}
	})
	addr, err := backend.Addr()
	if err != nil {
		t.Fatal(err)
	}
	return &Bed{Dir: dir, Backend: addr, Certs: certs, MaxOpen: 1000}
}

func TestCheck(t *testing.T) {
	bed := newBed(t)
	full, defaults := Variant{Full: true}, Variant{Defaults: true}
	for _, test := range []struct {
		name    string
		order   order
		variant Variant
		want    string // of the error, or of the handshake seen
	}{
		{"good", order{Group: tls.X25519}, full, "TLS 1.3, X25519, TLS_AES_128_GCM_SHA256, full"},
		{"resumes", order{Group: tls.X25519, Resumes: true}, Variant{}, "TLS 1.3, X25519, TLS_AES_128_GCM_SHA256, resumed"},
		{"resumes where it must not", order{Group: tls.X25519, Resumes: true}, full, "the two sides speak TLS 1.3, X25519, TLS_AES_128_GCM_SHA256, resumed"},
		{"other group", order{Group: tls.CurveP256}, Variant{}, "the two sides speak TLS 1.3, CurveP256"},
		{"other group by default", order{Group: tls.CurveP256}, defaults, "TLS 1.3, CurveP256, TLS_AES_128_GCM_SHA256, full"},
		{"TLS 1.2", order{Group: tls.X25519, Max: tls.VersionTLS12}, defaults, "the two sides speak TLS 1.2"},
		{"trusts all", order{Group: tls.X25519, TrustsAll: true}, Variant{}, "the server takes a client"},
		{"garbles", order{Group: tls.X25519, Garbles: true}, Variant{}, "other bytes came back"},
	} {
		t.Run(test.name, func(t *testing.T) {
			seen, err := bed.Check(t.Context(), madeToOrder(t, test.order), test.variant)
			if got := fmt.Sprint(seen, err); err != nil && !strings.Contains(err.Error(), test.want) || err == nil && seen.String() != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

// TestImpostor has a client that trusts every server meet one of another authority.
func TestImpostor(t *testing.T) {
	bed := newBed(t)
	for _, trusts := range []bool{true, false} {
		c := &check{bed: bed, peer: madeToOrder(t, order{Group: tls.X25519, TrustsAll: trusts}), pair: &Pair{dir: t.TempDir()}}
		if err := c.impostor(t.Context()); (err != nil) != trusts {
			t.Errorf("trusting all servers: %v; got %v", trusts, err)
		}
	}
}

func TestStartTellsWhatAProgramSaid(t *testing.T) {
	bed := newBed(t)
	peer := &Peer{Name: "broken", command: func(Side) (*exec.Cmd, error) { return exec.Command("sh", "-c", "echo no such flag >&2; exit 1"), nil }}
	_, err := bed.Start(t.Context(), peer, Variant{})
	if err == nil || !strings.Contains(err.Error(), "no such flag") {
		t.Errorf("%v, want what it said", err)
	}
}
