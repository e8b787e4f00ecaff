package workloadattest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Process is one process, pinned, while it is attested. What is read through it
// is of this process or an error, whoever has its number by then. It is safe for
// concurrent use. Nothing keeps it beyond the call that it was given to.
type Process struct {
	pin *pin
	// O_PATH of /proc/PID, opened before a check of the pin that passed.
	dir      *os.File
	uid, gid uint32
	owned    bool // pin is closed with this
}

// Open pins the process that has the number pid in the agent's PID namespace
// now. The error wraps [ErrGone] where there is none. Close it.
func Open(pid int) (*Process, error) { return theKernel().openProcess(pid) }

func (k kernel) openProcess(pid int) (*Process, error) {
	if pid <= 0 {
		return nil, fmt.Errorf("%w: there is no pid %d", ErrGone, pid)
	}
	pin, err := k.pinNumber(pid)
	if err != nil {
		return nil, err
	}
	p, err := pin.process(0, 0)
	if err != nil {
		pin.close()
		return nil, err
	}
	p.owned = true
	st, err := p.status()
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	p.uid, p.gid = st.UID, st.GID
	return p, nil
}

// process returns the process for one attestation.
func (p *pin) process(uid, gid uint32) (*Process, error) {
	if p.dir != nil {
		return &Process{pin: p, dir: p.dir, uid: uid, gid: gid}, p.check()
	}
	dir, err := openDir(p.pid)
	if err != nil {
		if errors.Is(err, ErrGone) && p.check() == nil {
			err = fmt.Errorf("pid %d lives and is not in /proc: mount it without hidepid, or let the agent run as root", p.pid)
		}
		return nil, err
	}
	// The process lives, so it had the number when the directory was opened.
	if err := p.check(); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return &Process{pin: p, dir: dir, uid: uid, gid: gid}, nil
}

// Close releases the process.
func (p *Process) Close() error {
	var err error
	if p.dir != p.pin.dir {
		err = p.dir.Close()
	}
	if p.owned {
		p.pin.close()
	}
	return err
}

// PID returns the process's number in the agent's PID namespace.
func (p *Process) PID() int { return p.pin.pid }

// UID returns the effective user ID that it connected with; that of a process
// which did not connect is that of [Open].
func (p *Process) UID() uint32 { return p.uid }

// GID is like [Process.UID], of the group.
func (p *Process) GID() uint32 { return p.gid }

// Key returns what tells this process from all others.
func (p *Process) Key() Key { return p.pin.key }

// Check returns an error that wraps [ErrGone] unless the process lives.
func (p *Process) Check() error { return p.pin.check() }

// Open opens a file of /proc/PID for reading, such as cgroup or ns/pid. A link,
// such as exe, opens what it is a link to.
func (p *Process) Open(name string) (*os.File, error) {
	if !filepath.IsLocal(name) {
		return nil, fmt.Errorf("%q is no file of /proc/PID", name)
	}
	f, err := openAt(p.dir, name)
	return f, p.explain(name, err)
}

// ReadFile reads a file of /proc/PID of at most limit bytes.
func (p *Process) ReadFile(name string, limit int) ([]byte, error) {
	f, err := p.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := readAll(f, limit)
	return data, p.explain(name, err)
}

// Readlink reads a link of /proc/PID, such as ns/pid.
func (p *Process) Readlink(name string) (string, error) {
	if !filepath.IsLocal(name) {
		return "", fmt.Errorf("%q is no file of /proc/PID", name)
	}
	raw, err := p.dir.SyscallConn()
	if err != nil {
		return "", err
	}
	buf := make([]byte, unix.PathMax)
	var n int
	var linkErr error
	err = raw.Control(func(dir uintptr) { n, linkErr = unix.Readlinkat(int(dir), name, buf) })
	if err := p.explain(name, errors.Join(err, linkErr)); err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// explain names the file in err, and says if it is missing because the process is.
func (p *Process) explain(name string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		if gone := p.Check(); gone != nil {
			return gone
		}
	}
	return fmt.Errorf("/proc/%d/%s: %w", p.pin.pid, name, err)
}

func (p *Process) status() (procStatus, error) {
	data, err := p.ReadFile("status", maxProcFile)
	if err != nil {
		return procStatus{}, err
	}
	st, err := parseStatus(data)
	if err != nil {
		return st, fmt.Errorf("/proc/%d/status: %w", p.pin.pid, err)
	}
	return st, nil
}

// openDir opens /proc/PID of whichever process has the number now.
func openDir(pid int) (*os.File, error) {
	dir, err := os.OpenFile("/proc/"+strconv.Itoa(pid), unix.O_PATH|unix.O_DIRECTORY, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil, fmt.Errorf("%w: %w", ErrGone, err)
	}
	return dir, err
}

// openAt opens a file below a directory that was opened with O_PATH.
func openAt(dir *os.File, name string) (*os.File, error) {
	raw, err := dir.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	var openErr error
	err = raw.Control(func(dir uintptr) {
		fd, openErr = unix.Openat(int(dir), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	})
	if err := errors.Join(err, openErr); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// readStat reads stat below an opened /proc/PID.
func readStat(dir *os.File) (procStat, error) {
	f, err := openAt(dir, "stat")
	if err == nil {
		defer f.Close()
		var data []byte
		if data, err = readAll(f, maxProcFile); err == nil {
			return parseStat(data)
		}
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		err = fmt.Errorf("%w: %w", ErrGone, err)
	}
	return procStat{}, err
}
