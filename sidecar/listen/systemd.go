package listen

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// firstFD is where the sockets from systemd begin (SD_LISTEN_FDS_START).
const firstFD = 3

// maxFDs is more sockets than a sidecar can want.
const maxFDs = 4096

// Inherited are the sockets that systemd handed to this process (sd_listen_fds(3)). It keeps them open until Close, so that a name which
// one configuration leaves out can come back with the next. It is safe for concurrent use. A nil *Inherited has none.
type Inherited struct {
	mu    sync.Mutex
	names []string   // of files, FileDescriptorName=; guarded by mu
	files []*os.File // guarded by mu; nil after Close. An element is nil if it is no socket: it may be the Go runtime's own.
}

// TakeInherited takes the sockets that LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES tell of, if they are meant for this process, and unsets
// the variables, so that no child takes them to be its own. Call it once, early in main.
func TakeInherited() (*Inherited, error) {
	env := map[string]string{}
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"} {
		env[name] = os.Getenv(name)
		if err := os.Unsetenv(name); err != nil {
			return nil, err
		}
	}
	names, err := parseInherited(env["LISTEN_PID"], env["LISTEN_FDS"], env["LISTEN_FDNAMES"], os.Getpid())
	if err != nil {
		return nil, err
	}
	in := &Inherited{names: names}
	for i, name := range names {
		fd := firstFD + i
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
			return nil, fmt.Errorf("LISTEN_FDS=%s, but file descriptor %d is not open: %w", env["LISTEN_FDS"], fd, err)
		}
		var f *os.File
		if _, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err == nil {
			f = os.NewFile(uintptr(fd), "systemd:"+name)
		}
		in.files = append(in.files, f)
	}
	return in, nil
}

// parseInherited returns the names of the sockets handed to the process self.
func parseInherited(pid, fds, fdNames string, self int) ([]string, error) {
	if pid == "" || fds == "" {
		return nil, nil
	}
	if n, err := strconv.Atoi(pid); err != nil {
		return nil, fmt.Errorf("LISTEN_PID=%s is not a number", pid)
	} else if n != self {
		return nil, nil // for a process that started this one
	}
	n, err := strconv.Atoi(fds)
	if err != nil || n < 0 || n > maxFDs {
		return nil, fmt.Errorf("LISTEN_FDS=%s is not a number from 0 to %d", fds, maxFDs)
	}
	if fdNames == "" {
		return slices.Repeat([]string{"unknown"}, n), nil // as sd_listen_fds_with_names(3)
	}
	names := strings.Split(fdNames, ":")
	if len(names) != n {
		return nil, fmt.Errorf("LISTEN_FDNAMES=%s has %d names, but LISTEN_FDS=%d", fdNames, len(names), n)
	}
	return names, nil
}

// Names returns the FileDescriptorNames handed over, sorted.
func (in *Inherited) Names() []string {
	if in == nil {
		return nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	names := slices.Clone(in.names)
	slices.Sort(names)
	return names
}

// Close closes the sockets of in. Listeners made from them stay.
func (in *Inherited) Close() error {
	if in == nil {
		return nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	var errs []error
	for _, f := range in.files {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	in.files, in.names = nil, nil
	return errors.Join(errs...)
}

// listen returns a listener on a duplicate of the one socket with name.
func (in *Inherited) listen(name string, opt Options) (net.Listener, error) {
	f, err := in.file(name)
	if err != nil {
		return nil, err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	if err := control(raw, func(fd int) error { return checkStream(fd, opt) }); err != nil {
		return nil, err
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, unwrapOp(err)
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // systemd made the file and goes on using it
	}
	return l, nil
}

// file returns the one socket with name.
func (in *Inherited) file(name string) (*os.File, error) {
	if in == nil || len(in.Names()) == 0 {
		return nil, errors.New("systemd handed no socket over: start this by a socket unit (systemd.socket(5)) or give HOST:PORT or unix:PATH")
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	var found *os.File
	count := 0
	for i, f := range in.files {
		if in.names[i] != name {
			continue
		}
		found = f
		if count++; count > 1 {
			return nil, errors.New("systemd handed several sockets of that name over: give each its own socket unit and FileDescriptorName=")
		}
	}
	switch {
	case count == 0:
		return nil, fmt.Errorf("systemd handed no socket of that name over, but %s: set FileDescriptorName= in the socket unit", strings.Join(in.names, ", "))
	case found == nil:
		return nil, errors.New("what systemd handed over under that name is no socket: use ListenStream= in the socket unit")
	}
	return found, nil
}

// checkStream refuses sockets that can't be accepted on, and sets on a TCP one what Listen sets.
func checkStream(fd int, opt Options) error {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	kind, kindErr := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	listening, listenErr := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err := errors.Join(err, kindErr, listenErr); err != nil {
		return err
	}
	if kind != unix.SOCK_STREAM || listening == 0 {
		return errors.New("what systemd handed over under that name does not listen for streams: use ListenStream= and Accept=no in the socket unit")
	}
	switch domain {
	case unix.AF_UNIX:
		return nil
	case unix.AF_INET, unix.AF_INET6:
		opt.ReusePort = false // the unit's to say
		return opt.setTCP(fd)
	}
	return fmt.Errorf("what systemd handed over under that name is of address family %d: use TCP or a UNIX socket", domain)
}
