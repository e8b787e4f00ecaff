package adminapi

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

// pinned is a process by its pidfd: while it lives, no other has its number.
type pinned struct {
	pid  int
	file *os.File
}

// pin pins the process that has the number pid now.
func pin(pid int) (*pinned, error) {
	// A thread's number, which is no process's, is refused here (EINVAL).
	fd, err := unix.PidfdOpen(pid, 0)
	switch {
	case errors.Is(err, unix.ESRCH), errors.Is(err, unix.EINVAL):
		return nil, fmt.Errorf("%w: pidfd of pid %d: %w", workloadattest.ErrGone, pid, err)
	case err != nil:
		return nil, fmt.Errorf("pidfd of pid %d: %w", pid, err)
	}
	// Non-blocking, so that the runtime's poller takes it. (PIDFD_NONBLOCK needs
	// Linux 5.10.)
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return &pinned{pid: pid, file: os.NewFile(uintptr(fd), "pidfd")}, nil
}

// check returns an error that wraps [workloadattest.ErrGone] if the process has
// ended.
func (p *pinned) check() error {
	raw, err := p.file.SyscallConn()
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
		return fmt.Errorf("%w: pid %d", workloadattest.ErrGone, p.pid)
	}
	return nil
}

// errEnded is why a stream about a process ends with it.
var errEnded = errors.New("the process has ended")

// watch cancels with [errEnded] when the process ends. It returns what stops it,
// closes p and waits until that is so.
func (p *pinned) watch(cancel context.CancelCauseFunc) (stop func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		raw, err := p.file.SyscallConn()
		if err != nil {
			return
		}
		// The runtime's poller wakes this; an error says that p was closed.
		if err := raw.Read(func(fd uintptr) bool {
			ended, err := readable(fd)
			return ended || err != nil
		}); err == nil {
			cancel(errEnded)
		}
	}()
	return func() {
		p.close()
		<-done
	}
}

func (p *pinned) close() { p.file.Close() }

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
