package spireconf

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/lanyard-mtls/lanyard/internal/telemetry"
)

// lines is where a log goes, and wakes who waits for a line.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
	more chan struct{}
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p)
	select {
	case l.more <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (l *lines) await(t *testing.T, text string) string {
	t.Helper()
	for {
		l.mu.Lock()
		got := l.text.String()
		l.mu.Unlock()
		if strings.Contains(got, text) {
			return got
		}
		select {
		case <-l.more:
		case <-t.Context().Done():
			t.Fatalf("no %q in %s", text, got)
		}
	}
}

func TestSignalsThatDontEndIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	file, err := telemetry.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for name, tc := range map[string]struct {
		sig    os.Signal
		closer io.Closer
		want   string
	}{
		"USR1":                     {syscall.SIGUSR1, file, "SIGUSR1 prints no metrics"},
		"USR2":                     {syscall.SIGUSR2, file, "reopened the log file"},
		"USR2 without a log file":  {syscall.SIGUSR2, io.NopCloser(nil), "and there is none"},
		"USR2 and nothing to open": {syscall.SIGUSR2, gone(t), "can't be opened again"},
	} {
		t.Run(name, func(t *testing.T) {
			out := &lines{more: make(chan struct{}, 1)}
			signals := make(chan os.Signal)
			ctx, cancel := context.WithCancel(t.Context())
			var done sync.WaitGroup
			done.Go(func() { onSignals(ctx, signals, tc.closer, slog.New(slog.NewTextHandler(out, nil))) })
			signals <- tc.sig
			out.await(t, tc.want)
			cancel()
			done.Wait()
		})
	}
}

// gone is a log file whose directory is gone.
func gone(t *testing.T) *telemetry.File {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	file, err := telemetry.OpenFile(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestProfilesAreServedToThisMachine(t *testing.T) {
	free, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	p := Profiling{Enabled: true, Port: free.Addr().(*net.TCPAddr).Port}
	out := &lines{more: make(chan struct{}, 1)}
	log := slog.New(slog.NewTextHandler(out, nil))
	p.Serve(t.Context(), log) // the port is in use: it says so, and the role goes on
	out.await(t, "profiles are not served")
	free.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { p.Serve(ctx, log) })
	text := out.await(t, "url=")
	_, url, _ := strings.Cut(text, "url=")
	resp, err := http.Get(strings.TrimSpace(url) + "cmdline")
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body.Close(); resp.StatusCode != http.StatusOK {
		t.Error(resp.Status)
	}
	http.DefaultClient.CloseIdleConnections()
	cancel()
	done.Wait()
}
