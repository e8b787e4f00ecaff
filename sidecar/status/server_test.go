package status_test

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/sidecar/listen"
	"github.com/lanyard-mtls/lanyard/sidecar/setting"
	"github.com/lanyard-mtls/lanyard/sidecar/status"
)

// faraway is a listener whose clients seem to be on another host.
type faraway struct{ net.Listener }

func (f faraway) Accept() (net.Conn, error) {
	c, err := f.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return farawayConn{c}, nil
}

type farawayConn struct{ net.Conn }

func (farawayConn) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}
}

func TestGap12ShutdownAndPProfAreForClientsOnThisHost(t *testing.T) {
	var shutdowns atomic.Int64
	cfg := status.Config{Shutdown: func() { shutdowns.Add(1) }, PProf: true}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	far := serve(t, faraway{l}, cfg)
	for path, method := range map[string]string{status.PathShutdown: http.MethodPost, "/debug/pprof/": http.MethodGet, "/debug/pprof/cmdline": http.MethodGet} {
		if code, body := far.do(t, method, path); code != 403 || body != path+" is for clients on this host\n" {
			t.Errorf("%s from another host: %d, %s", path, code, body)
		}
	}
	if code, _ := far.do(t, http.MethodGet, status.PathLive); code != 200 {
		t.Errorf("health from another host: %d", code)
	}
	if n := shutdowns.Load(); n != 0 {
		t.Fatalf("%d shutdowns", n)
	}
	for i, near := range []*port{serveTCP(t, cfg), serveUNIX(t, cfg)} {
		if code, body := near.do(t, http.MethodGet, "/debug/pprof/goroutine?debug=1"); code != 200 || !strings.Contains(body, "goroutine profile") {
			t.Errorf("pprof: %d, %s", code, body)
		}
		if code, _ := near.do(t, http.MethodGet, status.PathShutdown); code != 405 {
			t.Errorf("GET: %d", code)
		}
		// A web page that a browser on this host shows.
		if code, _ := near.do(t, http.MethodPost, status.PathShutdown, "Origin", "https://evil.test", "Sec-Fetch-Site", "cross-site"); code != 403 {
			t.Errorf("cross-site POST: %d", code)
		}
		if n := shutdowns.Load(); n != int64(i) {
			t.Fatalf("%d shutdowns", n)
		}
		if code, body := near.do(t, http.MethodPost, status.PathShutdown); code != 200 || shutdowns.Load() != int64(i)+1 {
			t.Errorf("POST: %d, %s, %d shutdowns", code, body, shutdowns.Load())
		}
	}
}

func TestShutdownAndPProfAreOffByDefault(t *testing.T) {
	p := serveUNIX(t, status.Config{})
	for _, path := range []string{status.PathShutdown, "/debug/pprof/", "/debug/pprof/heap"} {
		if code, _ := p.do(t, http.MethodPost, path); code != 404 {
			t.Errorf("%s: %d", path, code)
		}
	}
}

func TestGap12HTTPSIsNeverPlainHTTP(t *testing.T) {
	var cert atomic.Pointer[tls.Certificate]
	p := serveTCP(t, status.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		if c := cert.Load(); c != nil {
			return c, nil
		}
		return nil, errors.New("no identity yet")
	}})
	client := &http.Client{Timeout: limit, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	get := func(url string) (*http.Response, error) {
		resp, err := client.Get(url + p.addr + status.PathLive)
		if err == nil {
			resp.Body.Close()
		}
		return resp, err
	}
	if resp, err := get("https://"); err == nil {
		t.Errorf("without a certificate: %s", resp.Status)
	}
	svid := testca.New(t, "one.test").SVID(t, "spiffe://one.test/db")
	cert.Store(&tls.Certificate{Certificate: [][]byte{svid.Certificates[0].Raw}, PrivateKey: svid.PrivateKey})
	resp, err := get("https://")
	check(t, err)
	if got := resp.TLS.PeerCertificates[0]; resp.StatusCode != 200 || !got.Equal(svid.Certificates[0]) {
		t.Errorf("%s from %s", resp.Status, got.URIs)
	}
	if resp, err := get("http://"); err == nil && resp.StatusCode == 200 {
		t.Error("plain HTTP was answered")
	}
}

func TestGap12WhichPortsUseHTTPS(t *testing.T) {
	for _, tt := range []struct {
		addr         string
		certificates bool
		want         bool
		err          string
	}{
		{addr: "127.0.0.1:1", certificates: true, want: true},
		{addr: "https://127.0.0.1:1", certificates: true, want: true},
		{addr: "http://127.0.0.1:1", certificates: true},
		{addr: "unix:/run/s", certificates: true},
		{addr: "systemd:s", certificates: true},
		{addr: "127.0.0.1:1"},
		{addr: "https://127.0.0.1:1", err: "status.listen https://127.0.0.1:1: needs a certificate, and no tunnel has one to show: give http://127.0.0.1:1"},
	} {
		a, err := listen.ParseStatus("status.listen", tt.addr)
		check(t, err)
		got, err := status.UsesHTTPS("status.listen", a, tt.certificates)
		text := ""
		if err != nil {
			text = err.Error()
			if _, ok := errors.AsType[*setting.Error](err); !ok {
				t.Errorf("%s: %T", tt.addr, err)
			}
		}
		if got != tt.want || text != tt.err {
			t.Errorf("%s, %v: got %v, %q; want %v, %q", tt.addr, tt.certificates, got, text, tt.want, tt.err)
		}
	}
}

// A port that is gone is an error, not silence.
func TestServeTellsWhyItEnded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	check(t, l.Close())
	if err := status.New(status.Config{}).Serve(t.Context(), l); !errors.Is(err, net.ErrClosed) || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("got %v", err)
	}
}
