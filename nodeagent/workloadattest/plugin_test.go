package workloadattest

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

func TestPluginsAreAskedAtOnceAndReported(t *testing.T) {
	l, path := listen(t)
	child := startChild(t, path, "")
	_, caller, err := accept(t, l, NewCredentials(CredentialsOptions{Socket: "shop"}))
	if err != nil {
		t.Fatal(err)
	}
	var both sync.WaitGroup
	both.Add(2)
	one := func(value string, err error) named {
		return named{value, func(p *Process) ([]registration.Selector, error) {
			both.Done()
			both.Wait() // each waits for the other
			if p.PID() != child.cmd.Process.Pid || int(p.UID()) != os.Geteuid() || int(p.GID()) != os.Getegid() {
				t.Errorf("asked about pid %d, uid %d", p.PID(), p.UID())
			}
			return []registration.Selector{{Type: value, Value: "b"}, {Type: value, Value: "a"}}, err
		}}
	}
	var observed []Report
	a := New(Options{
		Plugins: []Plugin{one("x", nil), one("y", errors.New("daemon is away")), forger{}},
		Observe: func(r Report) { observed = append(observed, r) },
	})
	res, err := a.Attest(t.Context(), caller)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.IsSortedFunc(res.Selectors, func(a, b registration.Selector) int { return strings.Compare(a.String(), b.String()) }) {
		t.Errorf("not sorted: %v", res.Selectors)
	}
	for _, want := range []registration.Selector{{Type: "x", Value: "a"}, {Type: "y", Value: "b"}, SocketSelector("shop"), {Type: "lanyard", Value: "socket:shop"}} {
		if !slices.Contains(res.Selectors, want) {
			t.Errorf("no %s in %v", want, res.Selectors)
		}
	}
	var names []string
	for _, r := range res.Reports {
		names = append(names, r.Plugin)
	}
	if !slices.Equal(names, []string{"unix", "x", "y", "forger"}) || !slices.Equal(res.Reports, observed) || res.Reports[1].Selectors != 2 {
		t.Errorf("reports %+v, observed %+v", res.Reports, observed)
	}
	incomplete := res.Incomplete()
	if incomplete == nil || !strings.Contains(incomplete.Error(), "y: daemon is away") || !strings.Contains(incomplete.Error(), "unix:uid:0, which is not of its type") {
		t.Errorf("incomplete: %v", incomplete)
	}
}

type named struct {
	name string
	ask  func(*Process) ([]registration.Selector, error)
}

func (n named) Name() string { return n.name }

func (n named) Attest(_ context.Context, p *Process) ([]registration.Selector, error) {
	return n.ask(p)
}

// forger gives selectors that are another attestor's to give.
type forger struct{}

func (forger) Name() string { return "forger" }

func (forger) Attest(context.Context, *Process) ([]registration.Selector, error) {
	return []registration.Selector{{Type: "forger", Value: "x"}, {Type: "unix", Value: "uid:0"}}, nil
}

// One that hangs ends with the call, and is not said to have failed.
func TestCancelledAttestation(t *testing.T) {
	l, path := listen(t)
	startChild(t, path, "")
	_, caller, err := accept(t, l, testCredentials())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	hangs := hanging{cancel}
	observed := 0
	_, err = New(Options{Plugins: []Plugin{hangs}, Observe: func(Report) { observed++ }}).Attest(ctx, caller)
	if !errors.Is(err, context.Canceled) || observed != 0 {
		t.Errorf("%v, %d reports", err, observed)
	}
}

type hanging struct{ asked func() }

func (hanging) Name() string { return "hanging" }

func (h hanging) Attest(ctx context.Context, _ *Process) ([]registration.Selector, error) {
	if _, ok := ctx.Deadline(); !ok {
		return nil, errors.New("no deadline")
	}
	h.asked()
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestAttestPID(t *testing.T) {
	_, path := listen(t)
	child := startChild(t, path, "")
	pid := child.cmd.Process.Pid
	a := New(Options{DiscoverPath: true})
	res, info, err := a.AttestPID(t.Context(), pid)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range ownSelectors(t) {
		if !slices.Contains(res.Selectors, want) {
			t.Errorf("no selector %s in %v", want, res.Selectors)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if info.PID != pid || info.Executable != exe || int(info.UID) != os.Geteuid() || info.ContainerID != "" {
		t.Errorf("info %+v", info)
	}
	if age := time.Since(info.Started); age < -time.Second || age > time.Minute {
		t.Errorf("started %s ago", age)
	}
	child.end(t)
	for _, none := range []int{pid, 0, -1, 1 << 30} {
		if _, _, err := a.AttestPID(t.Context(), none); !errors.Is(err, ErrGone) {
			t.Errorf("pid %d: %v", none, err)
		}
	}
}

func TestProcessReadsItsOwnFilesOnly(t *testing.T) {
	p, err := Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if data, err := p.ReadFile("comm", 100); err != nil || len(data) == 0 {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := p.ReadFile("comm", 1); err == nil || !strings.Contains(err.Error(), "longer than 1 bytes") {
		t.Errorf("%v", err)
	}
	if _, err := p.ReadFile("no-such-file", 1); err == nil || errors.Is(err, ErrGone) {
		t.Errorf("a file that is not there: %v", err)
	}
	for _, name := range []string{"../1/status", "/etc/passwd", "..", ""} {
		if _, err := p.ReadFile(name, 1<<16); err == nil || !strings.Contains(err.Error(), "no file of /proc/PID") {
			t.Errorf("%q: %v", name, err)
		}
		if _, err := p.Readlink(name); err == nil || !strings.Contains(err.Error(), "no file of /proc/PID") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// A /proc that hides others' processes must not make callers look dead.
func TestHiddenProcess(t *testing.T) {
	own, err := theKernel().pinNumber(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer own.close()
	hidden := *own
	hidden.pid = 1 << 30 // no such directory, and the pidfd's process lives
	if _, err := hidden.process(0, 0); err == nil || errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "hidepid") {
		t.Errorf("%v", err)
	}
}
