package adminapi_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentadminv1"
	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/nodeagent/adminapi"
	"github.com/lanyard-mtls/lanyard/nodeagent/internal/jwttest"
	"github.com/lanyard-mtls/lanyard/nodeagent/jwtcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/jwtsvid"
	"github.com/lanyard-mtls/lanyard/nodeagent/svidcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

// childEnv makes the test binary another process: with a socket's path it becomes nobody, asks for an explanation and prints
// the code and the text; with "wait" it lives until its standard input ends.
const childEnv = "ADMINAPI_CHILD"

func TestMain(m *testing.M) {
	switch what := os.Getenv(childEnv); what {
	case "":
		os.Exit(m.Run())
	case "wait":
		fmt.Println("here")
		io.Copy(io.Discard, os.Stdin)
	default:
		if err := errors.Join(syscall.Setgid(65534), syscall.Setuid(65534)); err != nil {
			fmt.Println(err)
			os.Exit(3)
		}
		conn, err := grpc.NewClient("unix://"+what, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err == nil {
			_, err = agentadminv1.NewAdminClient(conn).Explain(context.Background(), &agentadminv1.ExplainRequest{Pid: 1})
		}
		fmt.Println(status.Code(err), status.Convert(err).Message())
	}
}

// process is one that can be asked about, until end is called.
func process(t *testing.T) (pid int, end func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"=wait")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stdout.Read(make([]byte, 1))
	end = sync.OnceFunc(func() {
		stdin.Close()
		cmd.Wait()
	})
	t.Cleanup(end)
	return cmd.Process.Pid, end
}

// people is the attestor: of the caller, which is the test, and of processes.
type people struct {
	mu     sync.Mutex
	caller workloadattest.Result
	others map[int]workloadattest.Result
}

func (p *people) AttestContext(context.Context) (workloadattest.Result, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.caller, nil
}

func (p *people) AttestPID(_ context.Context, pid int) (workloadattest.Result, workloadattest.ProcessInfo, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, ok := p.others[pid]
	if !ok {
		return workloadattest.Result{}, workloadattest.ProcessInfo{}, workloadattest.ErrGone
	}
	return r, workloadattest.ProcessInfo{PID: pid, UID: 7, Executable: "/bin/web", Started: time.Unix(1e9, 0)}, nil
}

func (p *people) set(pid int, r workloadattest.Result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.others[pid] = r
}

func (p *people) become(selectors ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.caller = result(selectors...)
}

func result(selectors ...string) workloadattest.Result {
	r := workloadattest.Result{Reports: []workloadattest.Report{{Plugin: "unix", Selectors: len(selectors)}}}
	for _, s := range selectors {
		sel, err := registration.ParseSelector(s)
		if err != nil {
			panic(err)
		}
		r.Selectors = append(r.Selectors, sel)
	}
	r.Selectors = registration.SortSelectors(r.Selectors)
	return r
}

// world is an agent's admin socket. The caller is the delegate spiffe://example.org/delegate by unix:uid:1 at first.
type world struct {
	t         *testing.T
	ca, other *testca.CA
	bundle    *x509bundle.Bundle // the own trust domain's
	jwt       *jwttest.Authority
	cache     *svidcache.Cache
	people    *people
	deps      adminapi.Deps
	log       *buffer
	path      string
	conn      *grpc.ClientConn
	stop      context.CancelFunc
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func newWorld(t *testing.T, change ...func(*adminapi.Deps)) *world {
	t.Helper()
	w := &world{
		t: t, ca: testca.New(t, "example.org"), other: testca.New(t, "other.org"), jwt: jwttest.New(t, "example.org", "k"),
		people: &people{others: map[int]workloadattest.Result{}}, log: new(buffer),
	}
	w.bundle = w.ca.Bundle()
	ctx, cancel := context.WithCancel(t.Context())
	stopping, stop := context.WithCancel(t.Context())
	w.stop = stop
	w.cache = svidcache.New(svidcache.Config{TrustDomain: w.ca.TrustDomain, Signer: w})
	jwts := jwtcache.New(jwtcache.Config{Signer: w})
	w.people.become("unix:uid:1")
	w.deps = adminapi.Deps{
		TrustDomain: w.ca.TrustDomain, Cache: w.cache, JWTs: jwts, Attestor: w.people, Started: time.Now(), Stopping: stopping,
		AuthorizedDelegates: []spiffeid.ID{w.id("/delegate")}, Log: slog.New(slog.NewTextHandler(w.log, nil)),
	}
	for _, f := range change {
		f(&w.deps)
	}
	dir, err := os.MkdirTemp("", "ly")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w.path = filepath.Join(dir, "s")
	l, err := net.Listen("unix", w.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(w.path, 0o777)); err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(workloadattest.NewCredentials(workloadattest.CredentialsOptions{})))
	adminapi.Register(server, w.deps)
	var running sync.WaitGroup
	running.Go(func() { server.Serve(l) })
	running.Go(func() { w.cache.Run(ctx) })
	running.Go(func() { jwts.Run(ctx) })
	if w.conn, err = grpc.NewClient("unix://"+w.path, grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.conn.Close()
		server.Stop()
		cancel()
		running.Wait()
	})
	return w
}

func (w *world) id(path string) spiffeid.ID { return spiffeid.RequireFromPath(w.ca.TrustDomain, path) }

// entry is one for those with the selectors; its ID is the path's end.
func (w *world) entry(path string, selectors ...string) registration.Entry {
	return registration.Entry{ID: strings.TrimPrefix(path, "/"), SPIFFEID: w.id(path), Selectors: result(selectors...).Selectors}
}

// apply has the issuer's word: the delegate's own entry, and more.
func (w *world) apply(entries ...registration.Entry) {
	w.cache.Apply(upstream.Update{
		Whole: true, Entries: append(entries, w.entry("/delegate", "unix:uid:1")), Bundle: w.bundle,
		Federated: map[spiffeid.TrustDomain]*x509bundle.Bundle{w.other.TrustDomain: w.other.Bundle()},
		JWT:       map[spiffeid.TrustDomain]*jwtsvid.Bundle{w.ca.TrustDomain: w.jwt.Bundle()},
	})
}

// SignX509SVIDs is the issuer's.
func (w *world) SignX509SVIDs(_ context.Context, reqs []upstream.CSR) ([]upstream.Signed, error) {
	var signed []upstream.Signed
	for _, r := range reqs {
		csr, err := x509.ParseCertificateRequest(r.DER)
		if err != nil {
			return signed, err
		}
		signed = append(signed, upstream.Signed{Chain: []*x509.Certificate{w.ca.Sign(w.t, w.id("/"+r.EntryID).String(), csr.PublicKey)}})
	}
	return signed, nil
}

// NewJWTSVID is the issuer's.
func (w *world) NewJWTSVID(_ context.Context, entryID string, audience []string) (jwtsvid.Token, error) {
	text, err := w.jwt.Sign(jwttest.Claims(w.id("/"+entryID).String(), time.Now(), time.Minute, audience...))
	if err != nil {
		return jwtsvid.Token{}, err
	}
	return jwtsvid.Inspect(text)
}

func wantStatus(t *testing.T, what string, err error, code codes.Code, text string) {
	t.Helper()
	if status.Code(err) != code || !strings.Contains(status.Convert(err).Message(), text) {
		t.Errorf("%s: %v, want %s %q", what, err, code, text)
	}
}
