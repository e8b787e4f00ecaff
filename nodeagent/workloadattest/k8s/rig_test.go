package k8s

import (
	"context"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	cgroups "github.com/lanyard-mtls/lanyard/nodeagent/workloadattest/container"
)

// Of testdata/pods.json, which a kubelet 1.34.1 answered.
const (
	podUID      = "1ae37283-f73d-40d0-866a-7348db4b9d93"
	containerID = "a391bdbf813f55d9bba6cb1d2374fe77de0b7db80d241f4a4eb7ba699241a6c7"
	initID      = "7a08d641d04ca570b6cc96175a4bbeff6cf81942959a4186b9aba4a2a25cfa03"
)

func recorded(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile("testdata/pods.json")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// fakeKubelet answers with what was recorded of a real one.
type fakeKubelet struct {
	*httptest.Server
	cfg      Config
	requests atomic.Int32
	waiting  chan struct{} // one for each request, if not nil; then answer lets it go on
	answer   chan struct{}

	mu    sync.Mutex
	token string
	code  int
	list  string
}

func newKubelet(t *testing.T) *fakeKubelet {
	t.Helper()
	k := &fakeKubelet{token: "secret-token", code: http.StatusOK, list: recorded(t)}
	k.Server = httptest.NewUnstartedServer(http.HandlerFunc(k.serve))
	k.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	k.StartTLS()
	t.Cleanup(k.Close)
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.Certificate().Raw})
	k.cfg = Config{
		KubeletSecurePort: portOf(t, k.Listener), KubeletCAPath: write("ca.crt", string(ca)), TokenPath: write("token", "secret-token\n"),
		MaxPollAttempts: 3, PollRetryInterval: 5 * time.Millisecond,
	}
	return k
}

func portOf(t *testing.T, l net.Listener) int {
	t.Helper()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (k *fakeKubelet) serve(w http.ResponseWriter, r *http.Request) {
	k.requests.Add(1)
	if k.waiting != nil {
		k.waiting <- struct{}{}
		<-k.answer
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case r.URL.Path != "/pods":
		http.NotFound(w, r)
	case k.token != "" && r.Header.Get("Authorization") != "Bearer "+k.token:
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
	default:
		w.WriteHeader(k.code)
		_, _ = io.WriteString(w, k.list)
	}
}

func (k *fakeKubelet) set(change func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change()
}

func newPlugin(t *testing.T, cfg Config) *Plugin {
	t.Helper()
	if errs := cfg.Validate(); len(errs) > 0 {
		t.Fatal(errs)
	}
	p := New(cfg)
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// attest is Attest of a process in a container.
func attest(ctx context.Context, p *Plugin, uid, id string) ([]string, error) {
	at, err := p.find(ctx, cgroups.Container{ID: id, PodUID: uid})
	if err != nil {
		return nil, err
	}
	found, err := p.describe(ctx, at)
	return texts(found), err
}

func texts(all []registration.Selector) []string {
	var values []string
	for _, s := range all {
		values = append(values, s.Type+":"+s.Value)
	}
	slices.Sort(values)
	return values
}
