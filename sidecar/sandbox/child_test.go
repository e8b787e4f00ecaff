package sandbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-mtls/lanyard/sidecar/sandbox"
)

// asChild makes this test binary a process that gives up all but its rules and then tries things.
const asChild = "LANYARD_TEST_SANDBOX"

// script is what a child does: Rules are applied, then each step is tried.
type script struct {
	Rules sandbox.Rules
	Steps []string // "verb argument"
}

func TestMain(m *testing.M) {
	if text := os.Getenv(asChild); text != "" {
		var s script
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		s.run()
		return
	}
	os.Exit(m.Run())
}

// run prints the outcome of each step, "ok" or the error's number. Threads that were there before try them.
func (s script) run() {
	work := make(chan func())
	for range 8 {
		go func() {
			runtime.LockOSThread()
			for f := range work {
				f()
			}
		}()
	}
	warm := make(chan bool)
	for range 8 {
		work <- func() { warm <- true }
	}
	for range 8 {
		<-warm
	}
	if err := sandbox.Apply(s.Rules, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for _, step := range s.Steps {
		result := make(chan string)
		work <- func() {
			verb, arg, _ := strings.Cut(step, " ")
			result <- outcome(try(verb, arg))
		}
		fmt.Println(<-result)
	}
}

func outcome(err error) string {
	if err == nil {
		return "ok"
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return unix.ErrnoName(errno)
	}
	return err.Error()
}

func try(verb, arg string) error {
	switch verb {
	case "read":
		_, err := os.ReadFile(arg)
		return err
	case "list":
		_, err := os.ReadDir(arg)
		return err
	case "write":
		return os.WriteFile(arg, []byte("x"), 0o600)
	case "replace": // as a file is replaced atomically
		return errors.Join(os.WriteFile(arg+".new", []byte("x"), 0o600), os.Rename(arg+".new", arg))
	case "remove":
		return os.Remove(arg)
	case "swap": // "link target"
		link, target, _ := strings.Cut(arg, " ")
		return errors.Join(os.Remove(link), os.Symlink(target, link))
	case "exec":
		return exec.Command(arg).Run()
	case "signal":
		pid, err := strconv.Atoi(arg)
		return errors.Join(err, unix.Kill(pid, 0))
	case "dumpable":
		n, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
		if err == nil && strconv.Itoa(n) != arg {
			err = fmt.Errorf("dumpable is %d", n)
		}
		return err
	case "coredumps":
		var limit unix.Rlimit
		filter, err := os.ReadFile("/proc/self/coredump_filter")
		if err := errors.Join(err, unix.Getrlimit(unix.RLIMIT_CORE, &limit)); err != nil {
			return err
		}
		if got := strings.TrimSpace(string(filter)); got != arg || limit != (unix.Rlimit{}) {
			return fmt.Errorf("coredump_filter %s, limit %v", got, limit)
		}
		return nil
	case "nonewprivs":
		return everyThread("NoNewPrivs:\t1\n")
	case "burn": // the runtime stops the world, and preempts by signals
		for range 20 {
			runtime.GC()
		}
		for end := time.Now().Add(50 * time.Millisecond); time.Now().Before(end); {
		}
		return nil
	}
	return tryNet(verb, arg)
}

func tryNet(verb, arg string) error {
	network, address, _ := strings.Cut(arg, ":")
	switch verb {
	case "dial":
		var d net.Dialer
		d.SetMultipathTCP(false)
		c, err := d.Dial(network, address)
		if err == nil {
			c.Close()
		}
		return err
	case "listen":
		var lc net.ListenConfig
		lc.SetMultipathTCP(false)
		l, err := lc.Listen(context.Background(), network, address)
		if err == nil {
			err = l.Close() // removes the file of a UNIX one
		}
		if network == "unix" && err == nil {
			if _, statErr := os.Stat(address); statErr == nil {
				err = errors.New("the file stayed")
			}
		}
		return err
	case "resolve":
		_, err := net.DefaultResolver.LookupHost(context.Background(), arg)
		return err
	}
	return errors.New("unknown verb " + verb)
}

func everyThread(line string) error {
	files, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil || len(files) < 8 {
		return fmt.Errorf("%d threads: %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if !strings.Contains(string(text), line) {
			return errors.New(file + " has not " + line)
		}
	}
	return nil
}

// step is something a child tries, and what must come of it.
type step struct{ do, want string }

// child runs steps under rules, and returns what was logged.
func child(t *testing.T, rules sandbox.Rules, env []string, steps ...step) (log string) {
	t.Helper()
	s := script{Rules: rules}
	for _, st := range steps {
		s.Steps = append(s.Steps, st.do)
	}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(append(os.Environ(), asChild+"="+string(text)), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s%s", err, out, &stderr)
	}
	got := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(got) != len(steps) {
		t.Fatalf("%q for %d steps\n%s", got, len(steps), &stderr)
	}
	for i, st := range steps {
		if got[i] != st.want {
			t.Errorf("%s: %s, want %s", st.do, got[i], st.want)
		}
	}
	return stderr.String()
}
