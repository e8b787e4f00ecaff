package oidc

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// serial is that of the certificate that the server serves.
func serial(t *testing.T, server *Server) string {
	t.Helper()
	conn, err := tls.Dial("tcp", server.Addr().String(), &tls.Config{InsecureSkipVerify: true, ServerName: "oidc.test"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

func TestCertificateIsServedWhenItsFilesChange(t *testing.T) {
	s := newSite(t)
	first := s.renew(t).SerialNumber.String()
	var clock atomic.Int64 // seconds, so that the test waits for none
	cfg := s.config()
	cfg.Now = func() time.Time { return time.Unix(clock.Add(1), 0) }
	server := run(t, cfg)
	if got := serial(t, server); got != first {
		t.Fatalf("served %s, want %s", got, first)
	}
	second := s.renew(t).SerialNumber.String()
	if got := serial(t, server); got != second {
		t.Errorf("after new files: served %s, want %s", got, second)
	}
	if err := os.WriteFile(s.key, []byte("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if got := serial(t, server); got != second {
			t.Errorf("after a broken key: served %s, want %s still", got, second)
		}
	}
	if log := s.log.String(); strings.Count(log, "cannot use the OIDC server's new certificate") != 1 || strings.Contains(log, "c2VjcmV0") {
		t.Errorf("want it told once, and nothing of the key:\n%s", log)
	}
	if err := os.Remove(s.cert); err != nil {
		t.Fatal(err)
	}
	if got := serial(t, server); got != second {
		t.Errorf("after a missing file: served %s, want %s still", got, second)
	}
	third := s.renew(t).SerialNumber.String()
	if got := serial(t, server); got != third {
		t.Errorf("once mended: served %s, want %s", got, third)
	}
}

func TestServerThatCannotListenSaysWhy(t *testing.T) {
	s := newSite(t)
	taken := run(t, s.config())
	inUse := s.config()
	inUse.Listen = taken.Addr().String()
	noFile := s.config()
	noFile.CertFile = filepath.Join(t.TempDir(), "none.pem")
	swapped := s.config()
	swapped.KeyFile = s.cert
	for want, cfg := range map[string]Config{"address already in use": inUse, "none.pem: no such file": noFile, s.cert + " with key": swapped} {
		server, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := server.Run(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Run: %v, want %q", err, want)
		}
		if server.Addr() != nil {
			t.Errorf("%s: listens", want)
		}
	}
}

func TestPlainHTTPOnASocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "ly")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := newSite(t)
	s.bundle.set(newAuthority(t, "key1", jose.ES256).published(t))
	cfg := plain()
	cfg.Keys, cfg.Listen, cfg.LogRequests, cfg.Log = s.bundle.list, "unix:"+filepath.Join(dir, "oidc.sock"), true, s.config().Log
	server := run(t, cfg)
	response, err := s.client(t, server.Addr()).Get("http://oidc.test/keys")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || !strings.Contains(string(body), "key1") {
		t.Errorf("%v: %s", err, body)
	}
	if log := s.log.String(); !strings.Contains(log, "path=/keys") || !strings.Contains(log, "status=200") {
		t.Errorf("the request is not logged:\n%s", log)
	}
}

func TestHugeHeadersAreRefused(t *testing.T) {
	s := newSite(t)
	cfg := plain()
	server := run(t, cfg)
	r, err := http.NewRequest(http.MethodGet, "http://oidc.test/keys", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Pad", strings.Repeat("x", 2*maxHeaders))
	response, err := s.client(t, server.Addr()).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("status %d, want 431", response.StatusCode)
	}
}

// A request that is being answered when the server stops is answered.
func TestStopLetsARequestEnd(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	s := newSite(t)
	s.bundle.set(newAuthority(t, "key1", jose.ES256).published(t))
	cfg := plain()
	keys := s.bundle.list()
	cfg.Keys = func() (k []*jwtKey) {
		close(asked)
		<-answer
		return keys
	}
	server, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	conn, err := net.Dial("tcp", server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /keys HTTP/1.1\r\nHost: oidc.test\r\n\r\n")
	<-asked
	cancel()
	close(answer)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("status %d", response.StatusCode)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
