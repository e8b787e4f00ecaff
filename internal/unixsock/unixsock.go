// Package unixsock owns the UNIX sockets that roles serve on and their clients
// dial: stale ones are replaced, live ones are not, and neither side talks to a
// socket that another user could have put there. It does not speak any protocol.
package unixsock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxPath is the longest path that fits into sockaddr_un (unix(7)), without its
// terminating zero.
const maxPath = 107

// Listen listens on the socket at path and gives its file the mode. It makes
// missing parent directories (0755). It removes a socket there that nobody
// answers on, and refuses: one that is answered ([InUseError]), a file that is no socket, and
// a parent directory that belongs to neither root nor this user, or that lies in
// one which another user made in a place open to all, such as /tmp. Closing the
// listener removes the file.
func Listen(path string, mode fs.FileMode) (*net.UnixListener, error) {
	return ListenOwned(path, mode, -1, -1)
}

// CheckPath says whether path is too long for a socket. It does no I/O.
func CheckPath(path string) error {
	if len(path) > maxPath {
		return fmt.Errorf("socket path %s is %d bytes long, the kernel takes at most %d: choose a shorter one", path, len(path), maxPath)
	}
	return nil
}

// ListenOwned is [Listen] with a file that belongs to uid and gid; -1 leaves
// either as it is. Giving a file away takes root.
func ListenOwned(path string, mode fs.FileMode, uid, gid int) (*net.UnixListener, error) {
	if err := CheckPath(path); err != nil {
		return nil, err
	}
	if err := trustedParent(path); err != nil {
		return nil, err
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// bind(2) gives the file the mode of the unbound socket, less the umask: set
	// before, so nobody can connect in between who may not later. The umask
	// itself is the whole process's and stays alone.
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var chmodErr error
		err := raw.Control(func(fd uintptr) { chmodErr = unix.Fchmod(int(fd), uint32(mode.Perm())) })
		return errors.Join(err, chmodErr)
	}}
	// A UNIX socket resolves no name: there is nothing that could be cancelled.
	l, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on socket %s: %w", path, unwrapOp(err))
	}
	if err := SetOwner(path, mode, uid, gid); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l.(*net.UnixListener), nil
}

// SetOwner gives the file of a socket its mode and its owner, as [ListenOwned]. It
// refuses a link, and what is no socket: in a directory that a group may write to,
// somebody could have put it there to have another file's mode changed.
func SetOwner(path string, mode fs.FileMode, uid, gid int) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("owner of socket %s: %w", path, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("owner of socket %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return fmt.Errorf("%s was replaced by what is not a socket: see who may write to its directory", path)
	}
	if uid >= 0 || gid >= 0 {
		if err := unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
			return fmt.Errorf("owner of socket %s: %w", path, err)
		}
	}
	// Before Linux 6.6 there is no such call, and sandboxes forbid what they don't know.
	if err = unix.Fchmodat(fd, "", uint32(mode.Perm()), unix.AT_EMPTY_PATH); err != nil {
		err = unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), uint32(mode.Perm()))
	}
	if err != nil {
		return fmt.Errorf("mode of socket %s: %w", path, err)
	}
	return nil
}

// trustedParent makes the parent directory where it is missing, and checks its
// owner: whoever owns it can replace the socket.
func trustedParent(path string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("directory of socket %s: %w", path, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return fmt.Errorf("directory of socket %s: %w", path, err)
	}
	if !trusted(st.Uid) {
		return fmt.Errorf("directory %s of socket %s belongs to uid %d, who could replace the socket: use one that root or uid %d owns", dir, filepath.Base(path), st.Uid, os.Geteuid())
	}
	// World-writable without the sticky bit: anyone can replace the socket.
	if st.Mode&0o002 != 0 && st.Mode&unix.S_ISVTX == 0 {
		return fmt.Errorf("directory %s of socket %s can be written to by everyone, who could replace the socket: run: chmod o-w %s", dir, filepath.Base(path), dir)
	}
	return nobodyWasFirst(dir)
}

// nobodyWasFirst refuses a directory below one that somebody else made where
// everyone may, as in /tmp: its owner can put another directory in place of dir.
func nobodyWasFirst(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		parent := filepath.Dir(dir)
		var above, st unix.Stat_t
		if err := errors.Join(unix.Stat(parent, &above), unix.Lstat(dir, &st)); err != nil {
			return fmt.Errorf("directory %s: %w", dir, err)
		}
		if above.Mode&0o002 == 0 {
			continue
		}
		if above.Mode&unix.S_ISVTX == 0 {
			return fmt.Errorf("directory %s can be written to by everyone, who could replace %s: run: chmod o-w %s", parent, dir, parent)
		}
		if !trusted(st.Uid) {
			return fmt.Errorf("%s belongs to uid %d, who could replace what is below: remove it, or choose another socket path", dir, st.Uid)
		}
	}
	return nil
}

func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s exists and is not a socket: remove it or choose another socket path", path)
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err == nil {
		defer conn.Close()
		return &InUseError{Path: path, by: peerPID(conn)}
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("socket %s exists and cannot be checked: %w", path, unwrapOp(err))
	}
	return os.Remove(path)
}

// InUseError says that a live process answers at a socket's path.
type InUseError struct {
	Path string
	by   string // " by pid N", or empty
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("socket %s is in use%s: stop that process or choose another socket path", e.Path, e.by)
}

func peerPID(c *net.UnixConn) string {
	cred, err := peerCred(c)
	if err != nil || cred.Pid == 0 {
		return ""
	}
	return fmt.Sprintf(" by pid %d", cred.Pid)
}

// PeerUID returns the effective user ID that the other end connected, or
// listened, with.
func PeerUID(c *net.UnixConn) (int, error) {
	cred, err := peerCred(c)
	if err != nil {
		return 0, err
	}
	return int(cred.Uid), nil
}

func peerCred(c *net.UnixConn) (*unix.Ucred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return cred, errors.Join(err, credErr)
}

// DialTrusted connects to the socket at path and refuses a server that runs as
// neither root nor this user: it could be anyone's, made to read secrets.
func DialTrusted(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("connect to socket %s: %w", path, unwrapOp(err))
	}
	if err := CheckPeer(conn.(*net.UnixConn)); err != nil {
		return nil, errors.Join(fmt.Errorf("socket %s: %w", path, err), conn.Close())
	}
	return conn, nil
}

// CheckPeer returns an error unless the other end is root or this user.
func CheckPeer(c *net.UnixConn) error {
	uid, err := PeerUID(c)
	if err == nil && !trusted(uint32(uid)) {
		err = fmt.Errorf("the other end is uid %d, neither root nor this user: not talking to it", uid)
	}
	return err
}

func trusted(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() }

// unwrapOp drops net's "dial unix PATH:" from an error that names the path
// itself.
func unwrapOp(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}
