package sockets

import (
	"errors"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-mtls/lanyard/internal/unixsock"
)

const (
	// maxFormer is how many sockets go on being served whose file is gone from
	// its path: a bind mount may still hold it.
	maxFormer = 4
	// maxExtra is how many connections to those may wait for an Accept.
	maxExtra = 8
	// acceptRetry is how long after an accept that failed the next is tried.
	acceptRetry = 100 * time.Millisecond
)

// fileID tells the file of a socket from another at the same path. The zero
// value is no file's.
type fileID struct{ dev, ino uint64 }

// bound is a listening socket and the file it was bound to.
type bound struct {
	*net.UnixListener
	file fileID
	// using is held while the socket is waited on.
	using sync.Mutex
}

// socket is what listens for one [Spec]: one socket at a time, and those that
// lost their files. Connections come through Accept of a [listener]; nothing
// else takes them, so that those which come while nobody accepts wait in the
// kernel, for this agent or the next.
type socket struct {
	spec Spec
	wg   sync.WaitGroup // the goroutines of the former ones

	// accepting is held by an Accept, until it returns or is to wait.
	accepting sync.Mutex

	mu      sync.Mutex
	current *bound
	former  []*bound
	extra   []net.Conn    // accepted already; the next to be handed out
	paused  bool          // nobody may accept: another agent takes over
	changed chan struct{} // closed, and made anew, when one of the above changes
}

func newSocket(spec Spec, current *bound) *socket {
	return &socket{spec: spec, current: current, changed: make(chan struct{})}
}

// update changes the socket and wakes who waits on it.
func (s *socket) update(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	close(s.changed)
	s.changed = make(chan struct{})
	wake(s.current)
}

// wake ends a wait on the socket, if there is one: the next call to accept lifts it.
func wake(b *bound) { _ = b.SetDeadline(time.Unix(1, 0)) }

// replace puts a socket that was bound anew in place of the current one, which
// goes on being served.
func (s *socket) replace(with *bound) {
	s.mu.Lock()
	old := s.current
	s.mu.Unlock()
	s.update(func() { s.current = with })
	wake(old)
	old.using.Lock() // whoever waited on the old one waits no more
	defer old.using.Unlock()
	s.keep(old)
}

// keep goes on serving a socket whose file is gone.
func (s *socket) keep(old *bound) {
	s.mu.Lock()
	s.former = append(s.former, old)
	var dropped []*bound
	if n := len(s.former) - maxFormer; n > 0 {
		dropped = slices.Clone(s.former[:n])
		s.former = slices.Delete(s.former, 0, n)
	}
	s.mu.Unlock()
	for _, b := range dropped {
		b.Close()
	}
	s.wg.Go(func() { s.serveFormer(old) })
}

// serveFormer hands the connections to a socket without a file to whoever
// accepts on the current one, until it is closed.
func (s *socket) serveFormer(b *bound) {
	for {
		s.mu.Lock()
		changed, wait := s.changed, s.paused || len(s.extra) >= maxExtra
		if !wait {
			_ = b.SetDeadline(time.Time{})
		}
		s.mu.Unlock()
		if wait {
			<-changed
			continue
		}
		conn, err := b.AcceptUnix()
		switch {
		case err == nil:
			s.update(func() { s.extra = append(s.extra, conn) })
		case errors.Is(err, os.ErrDeadlineExceeded): // paused
		case passing(err):
			retry := time.NewTimer(acceptRetry)
			select {
			case <-retry.C:
			case <-changed:
			}
			retry.Stop()
		default:
			return // closed, or of no use
		}
	}
}

// passing reports whether a later accept may work: it is for want of files or
// memory that this one did not, or the connection's own fault (accept(2)).
func passing(err error) bool {
	for _, one := range []error{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.ECONNABORTED} {
		if errors.Is(err, one) {
			return true
		}
	}
	return false
}

// pause ends all Accepts, which wait until resume. Connections that come
// meanwhile wait in the kernel.
func (s *socket) pause() {
	s.update(func() {
		s.paused = true
		for _, b := range s.former {
			wake(b)
		}
	})
	s.accepting.Lock()
	defer s.accepting.Unlock()
}

func (s *socket) resume() { s.update(func() { s.paused = false }) }

// close closes everything, and removes the file if that is asked and it is still
// the socket's.
func (s *socket) close(remove bool) error {
	s.mu.Lock()
	all := append(slices.Clone(s.former), s.current)
	s.mu.Unlock()
	var err error
	if now, statErr := fileAt(s.spec.Path); remove && statErr == nil && now == s.current.file {
		err = os.Remove(s.spec.Path)
	}
	for _, b := range all {
		err = errors.Join(err, b.Close())
	}
	s.update(func() { // those that wait see that theirs is closed
		s.paused = false
		for _, conn := range s.extra {
			conn.Close()
		}
		s.extra = nil
	})
	s.wg.Wait()
	return err
}

// bind binds a socket where there is none.
func bind(spec Spec) (*bound, error) {
	l, err := unixsock.ListenOwned(spec.Path, spec.Mode, spec.UID, spec.GID)
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	file, err := fileAt(spec.Path)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &bound{UnixListener: l, file: file}, nil
}
