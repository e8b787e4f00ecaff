package workloadattest

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// ErrGone says that a process has ended, or that there is none, or that it is no
// longer the one that connected.
var ErrGone = errors.New("the calling process has ended")

// kernel is what a process is pinned with. Tests take parts of it away.
type kernel struct {
	// peer returns a pidfd of the process that connected a socket (SO_PEERPIDFD,
	// Linux 6.5); ENOPROTOOPT before.
	peer func(socket int) (int, error)
	// open is pidfd_open(2), Linux 5.3; ENOSYS before.
	open func(pid int) (int, error)
	// pidfs reports whether a pidfd's inode is its process's alone (Linux 6.9).
	pidfs func(pidfd int) bool
}

func theKernel() kernel {
	return kernel{
		peer: func(socket int) (int, error) { return unix.GetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_PEERPIDFD) },
		open: func(pid int) (int, error) { return unix.PidfdOpen(pid, 0) },
		pidfs: func(pidfd int) bool {
			var st unix.Statfs_t
			return unix.Fstatfs(pidfd, &st) == nil && st.Type == unix.PID_FS_MAGIC
		},
	}
}

// pin holds on to one process for as long as a connection lasts, with one file
// descriptor: a pidfd or, before Linux 5.3, the directory /proc/PID opened with
// O_PATH. Either goes on meaning that process when its number is another's.
type pin struct {
	pid   int
	pidfd *os.File // nil: the kernel has none
	dir   *os.File // nil: there is a pidfd
	key   Key
}

// pinPeer pins the process that connected socket, whose SO_PEERCRED names pid.
// weak is true where it had to go by the number alone: then a process that ended
// before this call, and whose number was given anew, is not told apart.
func (k kernel) pinPeer(socket, pid int) (p *pin, weak bool, err error) {
	fd, err := k.peer(socket)
	if errors.Is(err, unix.ENOPROTOOPT) {
		p, err = k.pinNumber(pid)
		return p, true, err
	}
	if err != nil {
		return nil, false, pidfdError(pid, err)
	}
	if err := k.crossCheck(fd, pid); err != nil {
		return nil, false, errors.Join(err, unix.Close(fd))
	}
	p, err = k.pinFD(fd, pid)
	return p, false, err
}

// pinNumber pins the process that has the number pid now.
func (k kernel) pinNumber(pid int) (*pin, error) {
	fd, err := k.open(pid)
	if errors.Is(err, unix.ENOSYS) {
		return pinDir(pid)
	}
	if err != nil {
		return nil, pidfdError(pid, err)
	}
	return k.pinFD(fd, pid)
}

// pidfdError tells an ended process, ErrGone, from what is the agent's affair,
// such as too many open files. Which number stands for it depends on the kernel;
// EINVAL and ENOENT also mean a thread that is no process.
func pidfdError(pid int, err error) error {
	for _, gone := range []error{unix.ESRCH, unix.EINVAL, unix.ENOENT, unix.ENODATA} {
		if errors.Is(err, gone) {
			return fmt.Errorf("%w: pidfd of pid %d: %w", ErrGone, pid, err)
		}
	}
	return fmt.Errorf("pidfd of pid %d: %w", pid, err)
}

// crossCheck returns nil if pidfd, a socket's peer, is the process that has the
// number pid now. /proc is read by that number.
func (k kernel) crossCheck(pidfd, pid int) error {
	var same bool
	if k.pidfs(pidfd) {
		other, err := k.open(pid)
		if err != nil {
			return pidfdError(pid, err)
		}
		defer unix.Close(other)
		a, errA := inode(pidfd)
		b, errB := inode(other)
		if err := errors.Join(errA, errB); err != nil {
			return err
		}
		same = a == b
	} else { // all pidfds share one inode: the kernel's word has to do
		info, err := readProc("/proc/self/fdinfo/" + strconv.Itoa(pidfd))
		if err != nil {
			return err
		}
		named, err := parseFDInfoPID(info)
		if err != nil {
			return err
		}
		same = named == pid
	}
	if same {
		return nil
	}
	if ended, err := readable(uintptr(pidfd)); err != nil || ended {
		return errors.Join(fmt.Errorf("%w: pid %d", ErrGone, pid), err)
	}
	return fmt.Errorf("the socket's peer is pid %d, but its pidfd is another process's", pid)
}

// pinFD takes over fd, a pidfd of the process pid.
func (k kernel) pinFD(fd, pid int) (*pin, error) {
	unix.CloseOnExec(fd)
	p := &pin{pid: pid, pidfd: os.NewFile(uintptr(fd), "pidfd"), key: Key{pid: pid}}
	var err error
	if k.pidfs(fd) {
		p.key.ino, err = inode(fd)
	} else {
		p.key, err = p.keyByStart()
	}
	if err == nil {
		err = p.check()
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// pinDir pins by /proc/PID itself: what is opened below this one directory is
// the process's, and nothing once that has ended.
func pinDir(pid int) (*pin, error) {
	dir, err := openDir(pid)
	if err != nil {
		return nil, err
	}
	p := &pin{pid: pid, dir: dir}
	if p.key, err = startKey(dir, pid); err == nil {
		err = p.check()
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// check returns [ErrGone] unless the process lives. What was read by its number
// before a check that passes was this process's: no other can have had the
// number meanwhile.
func (p *pin) check() error {
	if p.pidfd == nil {
		st, err := readStat(p.dir)
		if err == nil && (st.ended || st.start != p.key.start) {
			err = fmt.Errorf("%w: pid %d", ErrGone, p.pid)
		}
		return err
	}
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var ended bool
	var pollErr error
	err = raw.Control(func(fd uintptr) { ended, pollErr = readable(fd) })
	if err := errors.Join(err, pollErr); err != nil {
		return err
	}
	if ended {
		return fmt.Errorf("%w: pid %d", ErrGone, p.pid)
	}
	return nil
}

// readable reports whether a pidfd says that its process has ended (pidfd_open(2)).
func readable(fd uintptr) (bool, error) {
	for {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		if !errors.Is(err, unix.EINTR) {
			return n > 0, err
		}
	}
}

func (p *pin) close() {
	if p.pidfd != nil {
		p.pidfd.Close()
	}
	if p.dir != nil {
		p.dir.Close()
	}
}
