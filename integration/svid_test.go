package integration

import (
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// svids is a trust domain whose SVIDs and bundle are files: what a test needs that is not about the Workload API.
type svids struct {
	*harness.Stage
	ca *harness.Authority
}

const filesDomain = "files.test"

func newSVIDs(t *testing.T) svids {
	t.Helper()
	s := harness.NewStage(t, bin)
	return svids{s, harness.NewAuthority(t, s.Dir, filesDomain)}
}

func (s svids) id(name string) string { return "spiffe://" + filesDomain + "/" + name }

// args are the flags of a sidecar that is name.
func (s svids) args(name string) []string {
	files := s.issue(name)
	return []string{"--cert", files.Cert, "--key", files.Key, "--trust-bundle", filesDomain + "=" + s.ca.JWKS, "--log-format", "json"}
}

func (s svids) issue(name string) harness.CertFiles {
	return s.ca.Issue(harness.CertSpec{Name: name, IDs: []string{s.id(name)}})
}

// sidecar starts one that is name and waits until it is ready.
func (s svids) sidecar(name, mode, target string, args ...string) *harness.Sidecar {
	s.Helper()
	return s.Sidecar(harness.SidecarSpec{Name: name, Binary: s.SidecarBinary(), Mode: mode, Target: target, Args: append(s.args(name), args...)})
}

// pair starts a client and a server sidecar in front of target.
func (s svids) pair(target string, args ...string) *pair {
	s.Helper()
	p := &pair{Stage: s.Stage}
	p.server = s.sidecar("server", "server", target, append(args, "--allow-uri", s.id("client"))...)
	p.client = s.sidecar("client", "client", p.server.Listen, append(args, "--verify-uri", s.id("server"))...)
	p.server.Probed(1)
	return p
}

// tls is the configuration of a stock client that is name, and expects the server.
func (s svids) tls(t *testing.T, name string) *tls.Config {
	t.Helper()
	svid, bundle := s.load(t, name)
	return tlsconfig.MTLSClientConfig(svid, bundle, tlsconfig.AuthorizeID(spiffeid.RequireFromString(s.id("server"))))
}

// serverTLS is the configuration of a stock server that is server, and expects the client.
func (s svids) serverTLS(t *testing.T, client string) *tls.Config {
	t.Helper()
	svid, bundle := s.load(t, "server")
	return tlsconfig.MTLSServerConfig(svid, bundle, tlsconfig.AuthorizeID(spiffeid.RequireFromString(s.id(client))))
}

// load is a new SVID of name, and the bundle.
func (s svids) load(t *testing.T, name string) (*x509svid.SVID, *spiffebundle.Bundle) {
	t.Helper()
	files := s.issue(name)
	svid, err := x509svid.Load(files.Cert, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := spiffebundle.Load(spiffeid.RequireTrustDomainFromString(filesDomain), s.ca.JWKS)
	if err != nil {
		t.Fatal(err)
	}
	return svid, bundle
}

// open is a connection that ends with the test, on which nothing takes longer than a test may.
func open(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn)
}

// exchange sends words over a connection to an echo server, and fails the test unless they come back.
func exchange(t *testing.T, conn io.ReadWriter, words string) {
	t.Helper()
	if err := tryExchange(conn, words); err != nil {
		t.Fatal(err)
	}
}

func tryExchange(conn io.ReadWriter, words string) error {
	if _, err := io.WriteString(conn, words); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, len(words)))
	return err
}

// echo is the address of a server that sends back what it gets.
func echo(t *testing.T) string {
	t.Helper()
	return serve(t, func(conn *net.TCPConn) { _, _ = io.Copy(conn, struct{ io.Reader }{conn}) })
}

// serveText is the address of a server that says one thing to whoever comes.
func serveText(t *testing.T, text string) string {
	t.Helper()
	return serve(t, func(conn *net.TCPConn) { _, _ = io.WriteString(conn, text) })
}

// readUnix is all that comes over a UNIX socket.
func readUnix(path string) (string, error) {
	conn, err := net.DialTimeout("unix", path, time.Minute)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	text, err := io.ReadAll(conn)
	return string(text), err
}
