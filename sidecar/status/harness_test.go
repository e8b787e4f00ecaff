package status_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar/status"
)

const limit = time.Minute // what a test waits for anything at most

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// port is a status server that serves until the test ends.
type port struct {
	*status.Server
	network, addr string
	client        *http.Client
	stop          func()
}

func serve(t *testing.T, l net.Listener, cfg status.Config) *port {
	t.Helper()
	p := &port{Server: status.New(cfg), network: l.Addr().Network(), addr: l.Addr().String()}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Serve(ctx, l) }()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, p.network, p.addr)
	}}
	p.client = &http.Client{Transport: transport, Timeout: limit}
	stopped := false
	p.stop = func() {
		if stopped {
			return
		}
		stopped = true
		transport.CloseIdleConnections()
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(limit):
			t.Fatal("Serve does not end")
		}
	}
	t.Cleanup(p.stop)
	return p
}

func serveTCP(t *testing.T, cfg status.Config) *port {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	return serve(t, l, cfg)
}

func serveUNIX(t *testing.T, cfg status.Config) *port {
	t.Helper()
	dir, err := os.MkdirTemp("", "ly")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	check(t, err)
	return serve(t, l, cfg)
}

// do returns the code and body that a request is answered with.
func (p *port) do(t *testing.T, method, path string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(method, "http://status"+path, nil)
	check(t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := p.client.Do(req)
	check(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	check(t, err)
	return resp.StatusCode, string(body)
}

func (p *port) status(t *testing.T) (int, status.Response) {
	t.Helper()
	code, body := p.do(t, http.MethodGet, status.Path)
	var resp status.Response
	check(t, json.Unmarshal([]byte(body), &resp))
	return code, resp
}
