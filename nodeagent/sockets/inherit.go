package sockets

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/lanyard-mtls/lanyard/internal/unixsock"
)

// inherited is a listening socket that systemd, or the agent before, had.
type inherited struct {
	*bound        // file is zero where it isn't known
	name   string // what it was called; "" is unknown
	twice  bool   // it is another one again, as when a socket unit and the store have it
}

// fileAt returns which file is at path; an error where that is no socket.
func fileAt(path string) (fileID, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return fileID{}, fmt.Errorf("socket %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return fileID{}, fmt.Errorf("%s is not a socket", path)
	}
	return fileID{dev: uint64(st.Dev), ino: st.Ino}, nil //nolint:unconvert // Dev is narrower on some machines
}

// listenerOf makes a listener of an inherited file, which it closes. It must be
// a listening UNIX stream socket with a path.
func listenerOf(file *os.File) (*net.UnixListener, error) {
	defer file.Close()
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	var kind, listening int
	var kindErr, listenErr error
	err = raw.Control(func(fd uintptr) {
		kind, kindErr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TYPE)
		listening, listenErr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	})
	if err := errors.Join(err, kindErr, listenErr); err != nil {
		return nil, err
	}
	if kind != unix.SOCK_STREAM || listening != 1 {
		return nil, errors.New("not a listening stream socket")
	}
	l, err := net.FileListener(file)
	if err != nil {
		return nil, err
	}
	u, ok := l.(*net.UnixListener)
	if !ok || u.Addr().String() == "" || u.Addr().String()[0] == '@' {
		return nil, errors.Join(fmt.Errorf("%s is not a UNIX socket with a path", l.Addr()), l.Close())
	}
	u.SetUnlinkOnClose(false)
	return u, nil
}

// adopt makes the socket of spec from those that are inherited and were bound to
// its path: the one whose file is still there, and those whose file was removed,
// which a bind mount may still hold. It returns nil where the file is none of
// theirs: then one is bound anew, and former go with it.
func adopt(spec Spec, all []*inherited) (s *socket, former []*bound, err error) {
	var current *bound
	var waiting []net.Conn
	for _, in := range all {
		if !samePath(in.Addr().String(), spec.Path) {
			continue
		}
		owns, conns, err := in.owns(spec.Path)
		waiting = append(waiting, conns...)
		switch {
		case err != nil:
			return nil, nil, errors.Join(err, closeAll(waiting))
		case owns && current == nil:
			file, err := fileAt(spec.Path)
			if err == nil {
				err = unixsock.SetOwner(spec.Path, spec.Mode, spec.UID, spec.GID)
			}
			if err != nil {
				return nil, nil, errors.Join(err, closeAll(waiting))
			}
			in.file = file
			current = in.bound
		case owns:
			in.twice = true
		default:
			former = append(former, in.bound)
		}
	}
	if current == nil {
		return nil, former, closeAll(waiting)
	}
	s = newSocket(spec, current)
	s.extra = waiting
	return s, former, nil
}

func samePath(a, b string) bool {
	a, errA := filepath.Abs(a)
	b, errB := filepath.Abs(b)
	return errA == nil && errB == nil && a == b
}

// owns reports whether the file at path is the one the socket was bound to. The
// agent before said which that was; systemd does not, and neither does a system
// call that works everywhere. So it connects, under a name that nobody else has,
// and looks whether that connection comes in on the socket. Others that come in
// before are returned: they are to be served.
func (in *inherited) owns(path string) (bool, []net.Conn, error) {
	now, err := fileAt(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return false, nil, nil
	case err != nil:
		return false, nil, err
	case in.file != fileID{}:
		return in.file == now, nil, nil
	}
	var waiting []net.Conn
	name := "@lanyard-" + rand.Text()
	for range 2 {
		probe, dialErr := net.DialUnix("unix", &net.UnixAddr{Name: name, Net: "unix"}, &net.UnixAddr{Name: path, Net: "unix"})
		found, conns, err := pending(in.UnixListener, name)
		waiting = append(waiting, conns...)
		if dialErr == nil {
			return found, waiting, errors.Join(err, probe.Close())
		}
		// EAGAIN: as many connections wait already as can. There is room now if
		// they waited here.
		if err != nil || !errors.Is(dialErr, unix.EAGAIN) {
			return false, waiting, err
		}
	}
	return false, waiting, nil
}

// pending accepts the connections that wait, without waiting for any: up to the
// one from the name, which it closes, and reports.
func pending(l *net.UnixListener, name string) (found bool, conns []net.Conn, err error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return false, nil, err
	}
	for {
		conn, err := acceptNow(raw)
		if errors.Is(err, unix.EAGAIN) {
			return false, conns, nil
		}
		if err != nil {
			return false, conns, err
		}
		if conn.RemoteAddr().String() == name {
			return true, conns, conn.Close()
		}
		conns = append(conns, conn)
	}
}

func acceptNow(raw syscall.RawConn) (net.Conn, error) {
	fd := -1
	var acceptErr error
	err := raw.Control(func(l uintptr) {
		fd, _, acceptErr = unix.Accept4(int(l), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	})
	if err := errors.Join(err, acceptErr); err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "accepted")
	defer f.Close()
	return net.FileConn(f)
}

func closeAll(conns []net.Conn) error {
	var err error
	for _, c := range conns {
		err = errors.Join(err, c.Close())
	}
	return err
}
