package workloadattest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// ErrGone says that the calling process has ended, or is no longer the one that
// connected.
var ErrGone = errors.New("the calling process has ended")

// process pins one process. With a pidfd the kernel says whether it is still
// the same; without (kernels before 5.3), its start time does.
type process struct {
	pid   int
	start uint64   // clock ticks since boot
	pidfd *os.File // nil: the kernel has none
}

// peerPIDFD returns a pidfd of the process that connected the socket (SO_PEERPIDFD,
// Linux 6.5).
func peerPIDFD(socket int) (int, error) {
	return unix.GetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
}

// pin pins the process that connected socket, whose SO_PEERCRED names pid. weak
// is true where it had to go by the number alone: then a process that ended
// before this call, and whose number was given anew, is not told apart.
func pin(socket, pid int, peerPIDFD func(int) (int, error)) (p *process, weak bool, err error) {
	fd, err := peerPIDFD(socket)
	weak = errors.Is(err, unix.ENOPROTOOPT)
	if weak {
		fd, err = unix.PidfdOpen(pid, 0)
	}
	switch {
	case errors.Is(err, unix.ENOSYS):
		p = &process{pid: pid}
	case errors.Is(err, unix.ESRCH), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENODATA):
		// Which of them depends on the kernel.
		return nil, weak, fmt.Errorf("%w: pidfd of pid %d: %w", ErrGone, pid, err)
	case err != nil: // too many open files, say: not the caller's affair
		return nil, weak, fmt.Errorf("pidfd of pid %d: %w", pid, err)
	default:
		if p, err = fromPIDFD(fd, pid); err != nil {
			return nil, weak, err
		}
	}
	if p.start, err = startTime(pid); err != nil {
		p.close()
		return nil, weak, err
	}
	// What was read by number belongs to the pinned process if that lives still.
	if err := p.check(); err != nil {
		p.close()
		return nil, weak, err
	}
	return p, weak, nil
}

// fromPIDFD takes over fd, a pidfd, after checking that it pins pid. The kernel's
// own word on that (fdinfo) is used and not a comparison of inodes with a pidfd
// opened by number: before Linux 6.9 all pidfds share one inode.
func fromPIDFD(fd, pid int) (*process, error) {
	unix.CloseOnExec(fd)
	// Non-blocking, so that the runtime's poller takes it: [process.wait].
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	p := &process{pid: pid, pidfd: os.NewFile(uintptr(fd), "pidfd")}
	info, err := readProc("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err == nil {
		var named int
		named, err = parseFDInfoPID(info)
		switch {
		case err != nil || named == pid:
		case named == -1:
			err = fmt.Errorf("%w: pid %d", ErrGone, pid)
		default:
			err = fmt.Errorf("the socket's peer is pid %d, its pidfd says %d: mount the /proc of the agent's own PID namespace", pid, named)
		}
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// check returns [ErrGone] unless the process lives. What was read from /proc/PID
// before a check that passes was this process's: no other can have had the
// number meanwhile.
func (p *process) check() error {
	if p.pidfd == nil {
		now, err := startTime(p.pid)
		if err == nil && now != p.start {
			err = fmt.Errorf("%w: pid %d is another process now", ErrGone, p.pid)
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
		return ErrGone
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

// pollInterval is how often a process without pidfd is looked at.
const pollInterval = time.Second

// wait blocks until the process has ended, or until stop is closed and, where
// there is a pidfd, the process closed too.
func (p *process) wait(stop <-chan struct{}) {
	if p.pidfd == nil {
		tick := time.NewTicker(pollInterval)
		defer tick.Stop()
		for p.check() == nil {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
		return
	}
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return
	}
	// The runtime's poller wakes this when the process ends; an error means that
	// the pidfd was closed.
	_ = raw.Read(func(fd uintptr) bool {
		ended, err := readable(fd)
		return ended || err != nil
	})
}

func (p *process) close() {
	if p.pidfd != nil {
		p.pidfd.Close()
	}
}

// path returns the path of a file of this process in /proc.
func (p *process) path(name string) string {
	return "/proc/" + strconv.Itoa(p.pid) + "/" + name
}

func startTime(pid int) (uint64, error) {
	path := "/proc/" + strconv.Itoa(pid) + "/stat"
	data, err := readProc(path)
	if err != nil {
		return 0, goneIfMissing(err)
	}
	ticks, err := parseStartTime(data)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return ticks, nil
}

// goneIfMissing turns "no such file" and "no such process" of /proc/PID into
// [ErrGone].
func goneIfMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	return err
}
