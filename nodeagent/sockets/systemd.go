package sockets

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/lanyard-mtls/lanyard/internal/unixsock"
)

// manager is the service manager: who listens on $NOTIFY_SOCKET (sd_notify(3)).
// The zero value is none.
type manager struct{ address string }

// tell sends a state, and with it a file where it isn't nil.
func (m manager) tell(file syscall.Conn, lines ...string) error {
	if m.address == "" {
		return nil
	}
	if m.address[0] != '/' && m.address[0] != '@' {
		return fmt.Errorf("NOTIFY_SOCKET %q is neither a path nor an abstract socket", m.address)
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: m.address, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("service manager: %w", err)
	}
	defer conn.Close()
	if err := unixsock.Pass(conn, []byte(strings.Join(lines, "\n")), file); err != nil {
		return fmt.Errorf("service manager: %w", err)
	}
	return nil
}

// line makes text one line, as a status must be.
func line(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\r' {
			return ' '
		}
		return r
	}, text)
}

// store puts the sockets of one name into the service manager's hands, in place
// of those it has by that name. It keeps them while the agent is away
// (FileDescriptorStoreMax=), and hands them to the next one.
func (m manager) store(name string, all ...*net.UnixListener) error {
	err := m.forget(name)
	for _, l := range all {
		// FDPOLL=0: it would drop a socket that reports an error (since v246).
		err = errors.Join(err, m.tell(l, "FDSTORE=1", "FDNAME="+name, "FDPOLL=0"))
	}
	return err
}

// forget makes the service manager close its sockets of that name.
func (m manager) forget(name string) error {
	return m.tell(nil, "FDSTOREREMOVE=1", "FDNAME="+name)
}

// fromManager returns the sockets that the service manager passed: those of
// socket units and those in its store (sd_listen_fds(3)). What is no listening
// UNIX socket is closed, and told.
func (s *Set) fromManager() []*inherited {
	var all []*inherited
	for _, file := range activation.Files(true) {
		name := file.Name()
		l, err := listenerOf(file)
		if err != nil {
			s.log.Warn("a file that the service manager passed is of no use", "name", name, "reason", err)
			continue
		}
		all = append(all, &inherited{bound: &bound{UnixListener: l}, name: name})
	}
	return all
}

func getenvManager() manager { return manager{address: os.Getenv("NOTIFY_SOCKET")} }

// watchdog tells the service manager that the agent is alive, twice in each
// interval it wants to hear so (WatchdogSec=), until ctx ends.
func (s *Set) watchdog(ctx context.Context) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		s.log.Warn("service manager's watchdog will not be told", "reason", err)
	}
	if err != nil || interval == 0 {
		return
	}
	tick := time.NewTicker(interval / 2)
	defer tick.Stop()
	for {
		alive := error(nil)
		if s.cfg.Alive != nil {
			alive = s.cfg.Alive(ctx)
		}
		if alive == nil {
			s.tell("WATCHDOG=1")
		} else {
			s.log.Warn("service manager's watchdog not told", "reason", alive)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
