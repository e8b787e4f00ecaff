package harness

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// T is what the harness needs of a test; *testing.T is one, and so is the demo.
type T interface {
	Helper()
	Context() context.Context
	Cleanup(func())
	Logf(format string, args ...any)
	Fatalf(format string, args ...any) // does not return
	Failed() bool
}

// stopGrace is how long a program may take to end by itself when its stage closes.
const stopGrace = 5 * time.Second

// Stage is a place for one scenario: a directory and the programs started in it. Both are gone at the end of the
// test, which fails if a program had to be killed.
type Stage struct {
	T
	Dir string // short, so that sockets below it keep within a socket path's 107 bytes
	Bin string // the folder of Lanyard's binaries

	mu    sync.Mutex
	procs []*Process
	names map[string]int // how often each was asked for by Unique
}

// NewStage makes the directory.
func NewStage(t T, bin string) *Stage {
	t.Helper()
	dir, err := os.MkdirTemp("", "ly")
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir) // selectors name the real path
	}
	if err != nil {
		t.Fatalf("%v", err)
	}
	s := &Stage{T: t, Dir: dir, Bin: bin}
	t.Cleanup(s.close)
	return s
}

// close ends the programs, the youngest first, and removes the directory.
func (s *Stage) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	failed := s.Failed()
	var stuck error
	for _, p := range slices.Backward(s.procs) {
		if p.Running() {
			if err := p.Stop(stopGrace); p.Stuck() {
				stuck = err
			}
		}
		if failed {
			s.Logf("%s said:\n%s", p.Name, p.Log.Tail(40))
		}
	}
	if err := os.RemoveAll(s.Dir); err != nil && stuck == nil {
		stuck = err
	}
	if stuck != nil && !failed {
		s.Fatalf("%v", stuck)
	}
}

// Start starts a program that ends with the stage, if not before.
func (s *Stage) Start(name, path string, args ...string) *Process {
	s.Helper()
	return s.StartCmd(name, exec.Command(path, args...))
}

// StartCmd is Start for a command with more to it, an environment for example.
func (s *Stage) StartCmd(name string, cmd *exec.Cmd) *Process {
	s.Helper()
	p, err := Start(name, cmd)
	if err != nil {
		s.Fatalf("%v", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.procs = append(s.procs, p)
	return p
}

// Run runs a program to its end, and returns its standard output.
func (s *Stage) Run(path string, args ...string) string {
	s.Helper()
	out, err := Run(s.Context(), path, args...)
	if err != nil {
		s.Fatalf("%v", err)
	}
	return out
}

// Unique is a name that no other call gave out: the prefix and a number.
func (s *Stage) Unique(prefix string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.names == nil {
		s.names = map[string]int{}
	}
	s.names[prefix]++
	return fmt.Sprintf("%s%d", prefix, s.names[prefix])
}

// Path is a path below the stage's directory, whose parent it makes.
func (s *Stage) Path(elem ...string) string {
	s.Helper()
	path := filepath.Join(append([]string{s.Dir}, elem...)...)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.Fatalf("%v", err)
	}
	return path
}

// WriteFile writes a file below the stage's directory, and returns its path.
func (s *Stage) WriteFile(name, text string) string {
	s.Helper()
	path := s.Path(name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.Fatalf("%v", err)
	}
	return path
}

// Copy gives a workload its own copy of a binary, so that its unix:path differs from all others'. A hard link serves
// where one can be made: the path that was executed counts.
func (s *Stage) Copy(binary, workload string) string {
	s.Helper()
	path := s.Path(workload, filepath.Base(binary))
	if os.Link(binary, path) == nil {
		return path
	}
	if err := copyFile(path, binary); err != nil {
		s.Fatalf("%v", err)
	}
	return path
}

func copyFile(to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(dst, src); err != nil {
		dst.Close()
		return fmt.Errorf("copy %s to %s: %w", from, to, err)
	}
	return dst.Close()
}

// Addr is a free loopback address.
func (s *Stage) Addr() string {
	s.Helper()
	addr, err := FreeAddr()
	if err != nil {
		s.Fatalf("%v", err)
	}
	return addr
}

// Until fails the test unless try succeeds within the limit.
func (s *Stage) Until(limit time.Duration, what string, try func(context.Context) error) {
	s.Helper()
	if err := Until(s.Context(), limit, what, try); err != nil {
		s.Fatalf("%v", err)
	}
}
