package workloadattest

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

// innerEnv says that this process is the first of its own PID namespace, in which
// it may give processes the numbers that it likes.
const innerEnv = "WORKLOADATTEST_INNER"

// A process that is given the number of a dead caller has nothing of it, and a
// dead caller's connection nothing of the process that has its number: at no
// moment, on no kernel. It is run by itself in namespaces of its own, with real
// processes and sockets.
func TestPIDReuse(t *testing.T) {
	if os.Getenv(innerEnv) != "" {
		mountProc(t)
		for kernel, weaken := range olderKernels() {
			for moment, attack := range attacks {
				t.Run(kernel+"/"+moment, func(t *testing.T) {
					creds := testCredentials()
					weaken(&creds.kernel)
					attack(t, creds)
				})
			}
		}
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^TestPIDReuse$", "-test.v", "-test.timeout=120s")
	cmd.Env = append(os.Environ(), innerEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	switch _, ran := errors.AsType[*exec.ExitError](err); {
	case err != nil && !ran:
		t.Skip("no namespaces here: ", err)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skipf("%s", out)
	case err != nil || strings.Count(string(out), "    --- PASS") != len(olderKernels())*len(attacks):
		t.Errorf("%v:\n%s", err, out)
	}
}

// mountProc mounts this PID namespace's /proc for this process and its children.
func mountProc(t *testing.T) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Skip("cannot make mounts private: ", err)
	}
	if err := ownProc(); err == nil || !strings.Contains(err.Error(), "mount the /proc of") {
		t.Errorf("the /proc of the namespace above: %v", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		t.Skip("cannot mount /proc: ", err)
	}
	if err := ownProc(); err != nil {
		t.Error(err)
	}
}

// attacks are by the moment at which the caller dies and its number is taken.
var attacks = map[string]func(*testing.T, *Credentials){
	"before accept":     attackBeforeAccept,
	"after accept":      attackAfterAccept,
	"in a plugin":       attackInPlugin,
	"before status":     attackBeforeStatus,
	"between messages":  attackBetweenMessages,
	"by its own number": attackByNumber,
}

// successorPath is executed by whoever takes a number over.
const successorPath = "/bin/sleep"

func attackBeforeAccept(t *testing.T, creds *Credentials) {
	l, path := listen(t)
	dead := startChild(t, path, "heir", "FIFO="+fifo(t))
	succeed(t, dead)
	_, caller, err := accept(t, l, creds)
	if weak(t, creds) && err == nil {
		// Such a kernel knows the peer by number alone until it is accepted: the
		// one limit of the fallback. What then counts is at least one process's.
		res, err := New(Options{DiscoverPath: true}).Attest(t.Context(), caller)
		if err == nil && slices.Contains(res.Selectors, pathOf(t)) {
			t.Errorf("the dead caller's path: %v", res.Selectors)
		}
		return
	}
	if !errors.Is(err, ErrGone) {
		t.Errorf("accepted %+v, %v", caller, err)
	}
}

// weak reports whether the kernel tells a peer's number alone.
func weak(t *testing.T, c *Credentials) bool {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	fd, err := c.kernel.peer(pair[0])
	if err == nil {
		unix.Close(fd)
	}
	return errors.Is(err, unix.ENOPROTOOPT)
}

func attackAfterAccept(t *testing.T, creds *Credentials) {
	l, path := listen(t)
	dead := startChild(t, path, "heir", "FIFO="+fifo(t))
	conn, caller, err := accept(t, l, creds)
	if err != nil {
		t.Fatal(err)
	}
	succeed(t, dead)
	if res, err := New(Options{DiscoverPath: true}).Attest(t.Context(), caller); !errors.Is(err, ErrGone) {
		t.Errorf("attested: %v, %v", res, err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read: %v", err)
	}
}

// plugin is an attestor of a function.
type plugin func(*Process) ([]registration.Selector, error)

func (plugin) Name() string { return "test" }

func (f plugin) Attest(_ context.Context, p *Process) ([]registration.Selector, error) { return f(p) }

func attackInPlugin(t *testing.T, creds *Credentials) {
	l, path := listen(t)
	dead := startChild(t, path, "heir", "FIFO="+fifo(t))
	_, caller, err := accept(t, l, creds)
	if err != nil {
		t.Fatal(err)
	}
	asked := plugin(func(p *Process) ([]registration.Selector, error) {
		succeed(t, dead)
		for _, name := range []string{"cgroup", "status", "stat"} {
			if data, err := p.ReadFile(name, 1<<16); !errors.Is(err, ErrGone) {
				t.Errorf("%s of the successor: %q, %v", name, data, err)
			}
		}
		if to, err := p.Readlink("exe"); !errors.Is(err, ErrGone) {
			t.Errorf("exe of the successor: %s, %v", to, err)
		}
		return nil, nil
	})
	if res, err := New(Options{Plugins: []Plugin{asked}}).Attest(t.Context(), caller); !errors.Is(err, ErrGone) {
		t.Errorf("attested: %v, %v", res, err)
	}
}

// The executable is open, and the rest is yet to be read.
func attackBeforeStatus(t *testing.T, creds *Credentials) {
	l, path := listen(t)
	dead := startChild(t, path, "heir", "FIFO="+fifo(t))
	_, caller, err := accept(t, l, creds)
	if err != nil {
		t.Fatal(err)
	}
	ctx := askedContext{t.Context(), sync.OnceFunc(func() { succeed(t, dead) })}
	if res, err := New(Options{DiscoverPath: true}).Attest(ctx, caller); !errors.Is(err, ErrGone) {
		t.Errorf("attested: %v, %v", res, err)
	}
}

func attackBetweenMessages(t *testing.T, creds *Credentials) {
	l, path := listen(t)
	dead := startChild(t, path, "heir", "FIFO="+fifo(t))
	conn, caller, err := accept(t, l, creds)
	if err != nil {
		t.Fatal(err)
	}
	attestor := New(Options{DiscoverPath: true})
	res, err := attestor.Attest(t.Context(), caller)
	if err != nil || !slices.Contains(res.Selectors, pathOf(t)) {
		t.Fatalf("attested: %v, %v", res, err)
	}
	succeed(t, dead)
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read: %v", err)
	}
	if res, err := attestor.Attest(t.Context(), caller); !errors.Is(err, ErrGone) {
		t.Errorf("attested again: %v, %v", res, err)
	}
}

// What is remembered of a process by its key is not another's of the same number.
func attackByNumber(t *testing.T, creds *Credentials) {
	l, path := listen(t)
	dead := startChild(t, path, "")
	if _, _, err := accept(t, l, creds); err != nil {
		t.Fatal(err)
	}
	pid := dead.cmd.Process.Pid
	old, err := creds.kernel.openProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	same, err := creds.kernel.openProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer same.Close()
	if old.Key() != same.Key() {
		t.Errorf("one process has two keys: %v and %v", old.Key(), same.Key())
	}
	succeed(t, dead)
	next, err := creds.kernel.openProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if next.Key() == old.Key() {
		t.Errorf("two processes have the key %v", next.Key())
	}
	if err := old.Check(); !errors.Is(err, ErrGone) {
		t.Errorf("the dead one: %v", err)
	}
	want, err := filepath.EvalSymlinks(successorPath)
	if err != nil {
		t.Fatal(err)
	}
	if exe, err := next.Readlink("exe"); err != nil || exe != want {
		t.Errorf("the successor executes %s, %v", exe, err)
	}
}

func pathOf(t *testing.T) registration.Selector {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return unixSelector("path", exe)
}

// succeed ends a process and starts another with its number, by the same user.
func succeed(t *testing.T, dead *childProcess) {
	t.Helper()
	pid := dead.cmd.Process.Pid
	dead.end(t)
	argv := []*byte{cString(t, successorPath), cString(t, "60"), nil}
	got, errno := cloneAs(pid, argv[0], argv, []*byte{nil})
	if errno != 0 || got != pid {
		t.Fatalf("a process with number %d: %d, %v", pid, got, errno)
	}
	t.Cleanup(func() {
		unix.Kill(pid, unix.SIGKILL)
		unix.Wait4(pid, nil, 0, nil)
	})
}

func cString(t *testing.T, s string) *byte {
	t.Helper()
	p, err := unix.BytePtrFromString(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// cloneArgs is struct clone_args of linux/sched.h, up to set_tid_size.
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize uint64
}

// cloneAs is fork and execve with a number of choice (clone3(2), set_tid, Linux
// 5.5). Between the two the child must not enter the Go runtime, and the parent
// waits: afterwards it is the successor.
//
//go:norace
func cloneAs(pid int, path *byte, argv, env []*byte) (int, syscall.Errno) {
	tid := int32(pid)
	args := cloneArgs{flags: unix.CLONE_VFORK, exitSignal: uint64(unix.SIGCHLD), setTID: uint64(uintptr(unsafe.Pointer(&tid))), setTIDSize: 1}
	child, _, errno := syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args), 0)
	if child != 0 || errno != 0 {
		return int(child), errno
	}
	syscall.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&env[0])))
	syscall.RawSyscall(unix.SYS_EXIT_GROUP, 127, 0, 0)
	return 0, 0
}
