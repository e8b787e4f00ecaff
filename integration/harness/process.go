package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Process is a program that was started. Its methods may be called at any time, also after its end.
type Process struct {
	Name string
	Log  *Log // standard output and error, in the order they came

	cmd  *exec.Cmd
	done chan struct{}
	err  error // of Wait; read after done is closed

	stuck atomic.Bool // it had to be killed by Stop
}

// Start starts a program in its own process group, so that a terminal's interrupt reaches only its starter. The
// kernel kills it should the starter die. Of cmd's SysProcAttr the rest stays: the user it runs as, for one.
func Start(name string, cmd *exec.Cmd) (*Process, error) {
	p := &Process{Name: name, Log: newLog(), cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.Log, p.Log
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Setpgid, cmd.SysProcAttr.Pdeathsig = true, syscall.SIGKILL
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = cmd.Wait()
		p.Log.close()
		close(p.done)
	}()
	return p, nil
}

// PID is the process ID.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the program has ended and all its output is in Log.
func (p *Process) Done() <-chan struct{} { return p.done }

// Running tells whether the program has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Kill ends the program with SIGKILL and waits for its end.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended already
	<-p.done
}

// Pause makes the program hang until Resume.
func (p *Process) Pause() { _ = p.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume lets it go on.
func (p *Process) Resume() { _ = p.cmd.Process.Signal(syscall.SIGCONT) }

// Stop ends the program with SIGTERM, and with SIGKILL after the grace time. The error is that of the program's end;
// nil says exit code 0.
func (p *Process) Stop(grace time.Duration) error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
		return p.err
	case <-timer.C:
		p.stuck.Store(true)
		p.Kill()
		return fmt.Errorf("%s did not end within %v of SIGTERM", p.Name, grace)
	}
}

// Wait waits for the program's end; the error is that of its end, nil says exit code 0.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Stuck tells whether Stop had to kill it.
func (p *Process) Stuck() bool { return p.stuck.Load() }

// WaitFor waits until the program's output holds text, and returns the line that does.
func (p *Process) WaitFor(ctx context.Context, text string) (string, error) {
	for {
		lines, changed := p.Log.snapshot()
		for _, line := range lines {
			if strings.Contains(line, text) {
				return line, nil
			}
		}
		select {
		case <-changed:
		case <-p.done:
			if lines, _ := p.Log.snapshot(); strings.Contains(strings.Join(lines, "\n"), text) {
				continue
			}
			return "", fmt.Errorf("%s ended (%v) before it said %q; it said:\n%s", p.Name, p.err, text, p.Log.Tail(20))
		case <-ctx.Done():
			return "", fmt.Errorf("%s did not say %q: %w; it said:\n%s", p.Name, text, ctx.Err(), p.Log.Tail(20))
		}
	}
}

// Logged are the JSON lines of its output with this message.
func (p *Process) Logged(msg string) []map[string]any {
	var found []map[string]any
	for _, line := range p.Log.Lines() {
		record := map[string]any{}
		if strings.Contains(line, msg) && json.Unmarshal([]byte(line), &record) == nil && record["msg"] == msg {
			found = append(found, record)
		}
	}
	return found
}

// Log collects a program's output as lines.
type Log struct {
	mu      sync.Mutex
	lines   []string
	partial string
	changed chan struct{} // closed and replaced at each new line
}

func newLog() *Log { return &Log{changed: make(chan struct{})} }

// Write implements io.Writer; it never fails.
func (l *Log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	whole := strings.Split(l.partial+string(b), "\n")
	l.partial = whole[len(whole)-1]
	if len(whole) > 1 {
		l.lines = append(l.lines, whole[:len(whole)-1]...)
		close(l.changed)
		l.changed = make(chan struct{})
	}
	return len(b), nil
}

func (l *Log) close() {
	l.mu.Lock()
	unfinished := l.partial != ""
	l.mu.Unlock()
	if unfinished {
		_, _ = l.Write([]byte("\n"))
	}
}

func (l *Log) snapshot() ([]string, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines[:len(l.lines):len(l.lines)], l.changed
}

// Lines are the whole lines so far.
func (l *Log) Lines() []string {
	lines, _ := l.snapshot()
	return lines
}

// Tail is the last n lines, each indented.
func (l *Log) Tail(n int) string {
	lines := l.Lines()
	return "    " + strings.Join(lines[max(0, len(lines)-n):], "\n    ")
}

// Run runs a program to its end and returns its standard output. The error holds what it said on standard error,
// and wraps *exec.ExitError.
func Run(ctx context.Context, path string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, path, args...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w: %s", path, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// ExitCode is the exit code an error of Run or Stop tells of: 0 for nil, -1 for one that tells of none.
func ExitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	case errors.Is(err, os.ErrProcessDone):
		return 0
	default:
		return -1
	}
}
