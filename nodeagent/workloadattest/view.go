package workloadattest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Process is one process, pinned: whatever is read through it was this process's,
// or [Process.Check] fails afterwards. It is safe for concurrent use.
type Process struct {
	pin      *process
	dir      *os.File // O_PATH of /proc/PID
	uid, gid uint32
}

// Key tells processes apart for as long as the machine runs: no two have the
// same. It is comparable.
type Key struct {
	pid        int
	start, ino uint64
}

// Open pins the process that has the number pid now. Close it. The error wraps
// [ErrGone] where there is none.
func Open(pid int) (*Process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: pid %d: %w", ErrGone, pid, err)
	}
	pin, err := fromPIDFD(fd, pid)
	if err != nil {
		return nil, err
	}
	if pin.start, err = startTime(pid); err != nil {
		pin.close()
		return nil, err
	}
	p, err := pin.view(0, 0)
	if err != nil {
		pin.close()
		return nil, err
	}
	return p, nil
}

// Close releases what [Open] pinned.
func (p *Process) Close() error {
	p.pin.close()
	return p.dir.Close()
}

func (p *process) view(uid, gid uint32) (*Process, error) {
	dir, err := os.OpenFile("/proc/"+strconv.Itoa(p.pid), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, goneIfMissing(err)
	}
	if err := p.check(); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return &Process{pin: p, dir: dir, uid: uid, gid: gid}, nil
}

// PID returns the process's number in the agent's PID namespace.
func (p *Process) PID() int { return p.pin.pid }

// UID returns the effective user ID: a caller's is the one it connected with.
func (p *Process) UID() uint32 { return p.uid }

// GID is like [Process.UID], of the group.
func (p *Process) GID() uint32 { return p.gid }

// Key returns what tells this process from all others.
func (p *Process) Key() Key { return Key{pid: p.pin.pid, start: p.pin.start} }

// Check returns an error that wraps [ErrGone] unless the process lives.
func (p *Process) Check() error { return p.pin.check() }

// Open opens a file of /proc/PID, such as cgroup, for reading.
func (p *Process) Open(name string) (*os.File, error) {
	if !filepath.IsLocal(name) {
		return nil, fmt.Errorf("%q is no file of /proc/PID", name)
	}
	raw, err := p.dir.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	var openErr error
	err = raw.Control(func(dir uintptr) {
		fd, openErr = unix.Openat(int(dir), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	})
	if err := errors.Join(err, openErr); err != nil {
		return nil, fmt.Errorf("open %s: %w", p.path(name), err)
	}
	return os.NewFile(uintptr(fd), p.path(name)), nil
}

// ReadFile reads a file of /proc/PID of at most limit bytes.
func (p *Process) ReadFile(name string, limit int) ([]byte, error) {
	f, err := p.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err == nil && len(data) > limit {
		err = fmt.Errorf("%s is longer than %d bytes", p.path(name), limit)
	}
	return data, err
}

func (p *Process) path(name string) string { return p.pin.path(name) }

// AttestPID attests the process that has the number pid now, as if it called.
// The error wraps [ErrGone] where there is none.
func (a *Attestor) AttestPID(context.Context, int) (Result, ProcessInfo, error) {
	return Result{}, ProcessInfo{}, errors.New("not built yet")
}

// Readlink reads a link of /proc/PID, such as ns/pid.
func (p *Process) Readlink(name string) (string, error) {
	return os.Readlink(p.path(name))
}
