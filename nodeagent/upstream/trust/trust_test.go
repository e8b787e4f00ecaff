package trust_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/nodeagent/internal/spiretest"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream/attest"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream/trust"
)

func formats(t testing.TB, ca *testca.CA) map[string][]byte {
	t.Helper()
	pem, err := ca.Bundle().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := spiffebundle.FromX509Bundle(ca.Bundle()).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{"": pem, trust.PEM: pem, trust.SPIFFE: doc}
}

func TestFile(t *testing.T) {
	ca := testca.New(t, "example.org")
	path := filepath.Join(t.TempDir(), "bundle")
	for format, content := range formats(t, ca) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := trust.File{TrustDomain: ca.TrustDomain, Path: path, Format: format}.Bundle(t.Context())
		if err != nil || !got.Equal(ca.Bundle()) {
			t.Errorf("%q: %v, %v", format, got, err)
		}
	}
	for want, f := range map[string]trust.File{
		"no such file":                  {Path: path + ".not"},
		"is not in SPIFFE's format":     {Path: os.Args[0][:1], Format: trust.SPIFFE},
		`trust_bundle_format "der"`:     {Path: path, Format: "der"},
		`the agent's trust domain is "`: {Path: path, Format: trust.SPIFFE, TrustDomain: spiffeid.RequireTrustDomainFromString("other.org")},
	} {
		if f.TrustDomain.IsZero() {
			f.TrustDomain = ca.TrustDomain
		}
		if strings.HasPrefix(want, "is not in") {
			f.Path = filepath.Join(t.TempDir(), "junk")
			if err := os.WriteFile(f.Path, []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if want == `the agent's trust domain is "` {
			if err := os.WriteFile(path, formats(t, ca)[trust.SPIFFE], 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := f.Bundle(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// A file that cannot work ends the agent at once, with the reason.
func TestAnAgentWithABadFileSaysSo(t *testing.T) {
	s := spiretest.New(t, "example.org")
	client, err := upstream.Open(upstream.Config{
		TrustDomain: s.CA.TrustDomain, DataDir: t.TempDir(), ServerAddress: s.Addr,
		Attestor:    attest.JoinToken{Token: attest.Token{Value: s.Token("tok", time.Hour)}},
		TrustSource: trust.File{TrustDomain: s.CA.TrustDomain, Path: "/nonexistent/bundle.pem"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Run(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("ended with %v", err)
	}
}

func TestHTTPS(t *testing.T) {
	ca := testca.New(t, "example.org")
	content := formats(t, ca)
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	mux := http.NewServeMux()
	for format, body := range content {
		mux.HandleFunc("/"+format, func(w http.ResponseWriter, _ *http.Request) { w.Write(body) })
	}
	mux.Handle("/there", http.RedirectHandler("/pem", http.StatusFound))
	mux.Handle("/plain", http.RedirectHandler(plain.URL, http.StatusFound))
	mux.Handle("/round", http.RedirectHandler("/round", http.StatusFound))
	mux.Handle("/gone", http.NotFoundHandler())
	mux.HandleFunc("/long", func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 5<<20)) })
	server := httptest.NewTLSServer(mux)
	defer server.Close()
	at := func(path, format string) trust.URL {
		return trust.URL{TrustDomain: ca.TrustDomain, URL: server.URL + path, Format: format, Transport: server.Client().Transport}
	}
	for path, format := range map[string]string{"/pem": trust.PEM, "/spiffe": trust.SPIFFE, "/there": ""} {
		got, err := at(path, format).Bundle(t.Context())
		if err != nil || !got.Equal(ca.Bundle()) {
			t.Errorf("%s: %v, %v", path, got, err)
		}
	}
	for path, want := range map[string]string{
		"/plain": "not https", "/round": "more than 10 times", "/gone": "404", "/long": "more than 4194304 bytes", "/spiffe": "not a list of PEM",
	} {
		if _, err := at(path, "").Bundle(t.Context()); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), server.URL) {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
	strange := at("/pem", "")
	strange.Transport = nil // the system's authorities
	if _, err := strange.Bundle(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("took the word of a server of no known authority: %v", err)
	}
}

func TestURLsThatCannotWork(t *testing.T) {
	td := spiffeid.RequireTrustDomainFromString("example.org")
	for want, u := range map[string]trust.URL{
		"want https":     {URL: "http://example.org/bundle"},
		"want http with": {URL: "https://example.org/bundle", UnixSocket: "/s"},
		"has no host":    {URL: "https:///bundle"},
		"parse":          {URL: "https://[::1/"},
	} {
		u.TrustDomain = td
		if _, err := u.Bundle(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", u.URL, err, want)
		}
	}
}

// What answers on a UNIX socket is told why it is asked, as SPIRE tells it.
func TestUnixSocket(t *testing.T) {
	s := spiretest.New(t, "example.org")
	path := socket(t)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	queries := make(chan url.Values, 10)
	body := formats(t, s.CA)[trust.PEM]
	attempts := 0
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		queries <- r.URL.Query()
		if attempts++; attempts == 1 {
			http.Error(w, "not yet", http.StatusServiceUnavailable)
			return
		}
		w.Write(body)
	})}
	served := make(chan struct{})
	go func() { defer close(served); server.Serve(l) }()
	defer func() { server.Close(); <-served }()

	client, err := upstream.Open(upstream.Config{
		TrustDomain: s.CA.TrustDomain, DataDir: t.TempDir(), ServerAddress: s.Addr,
		Attestor:    attest.JoinToken{Token: attest.Token{Value: s.Token("tok", time.Hour)}},
		TrustSource: trust.URL{TrustDomain: s.CA.TrustDomain, URL: "http://any/bundle?mine=1", UnixSocket: path},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); client.Run(ctx) }()
	<-client.Joined()
	cancel()
	<-ended
	host, port, _ := net.SplitHostPort(s.Addr)
	first, second := <-queries, <-queries
	for key, want := range map[string]string{
		"mine": "1", "spire-attest-mode": "bootstrap", "spire-connection-attempts": "2", "spire-server-address": host,
		"spire-server-port": port, "spiffe-trust-domain": "example.org", "spire-attest-start-time": first.Get("spire-attest-start-time"),
	} {
		if got := second.Get(key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	if _, err := time.Parse(time.RFC3339, first.Get("spire-attest-start-time")); err != nil {
		t.Error(err)
	}
}

func socket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ly")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

type api struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	bundles map[string][]byte
}

func (a api) FetchX509Bundles(_ *workload.X509BundlesRequest, stream workload.SpiffeWorkloadAPI_FetchX509BundlesServer) error {
	return stream.Send(&workload.X509BundlesResponse{Bundles: a.bundles})
}

func TestWorkloadAPI(t *testing.T) {
	ca := testca.New(t, "example.org")
	path := socket(t)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	workload.RegisterSpiffeWorkloadAPIServer(server, api{bundles: map[string][]byte{"spiffe://example.org": ca.Cert.Raw}})
	served := make(chan struct{})
	go func() { defer close(served); server.Serve(l) }()
	defer func() { server.Stop(); <-served }()
	got, err := trust.WorkloadAPI{TrustDomain: ca.TrustDomain, Addr: "unix://" + path}.Bundle(t.Context())
	if err != nil || !got.Equal(ca.Bundle()) {
		t.Errorf("%v, %v", got, err)
	}
	other := trust.WorkloadAPI{TrustDomain: spiffeid.RequireTrustDomainFromString("other.org"), Addr: "unix://" + path}
	if _, err := other.Bundle(t.Context()); err == nil || !strings.Contains(err.Error(), `no bundle of trust domain "other.org"`) {
		t.Errorf("%v", err)
	}
	other.Addr = "the socket"
	if _, err := other.Bundle(t.Context()); err == nil || !strings.Contains(err.Error(), "trust_bundle_spiffe_workload_api") {
		t.Errorf("%v", err)
	}
}

func FuzzParse(f *testing.F) {
	ca := testca.New(f, "example.org")
	for format, content := range formats(f, ca) {
		f.Add(format, content)
	}
	f.Add("der", []byte{})
	f.Fuzz(func(t *testing.T, format string, content []byte) {
		bundle, err := trust.Parse(ca.TrustDomain, format, content)
		if err == nil && (bundle.Empty() || bundle.TrustDomain() != ca.TrustDomain) {
			t.Errorf("bundle %v", bundle)
		}
	})
}
