package sockets

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// serveHandOver waits for an agent that wants to take over, gives it the sockets,
// and returns the link to it once it has what it needs. It returns nil when ctx
// ends.
func (s *Set) serveHandOver(ctx context.Context, l *net.UnixListener) (*link, []string) {
	stop := context.AfterFunc(ctx, func() { _ = l.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		conn, err := l.AcceptUnix()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return nil, nil
		}
		if err != nil {
			s.log.Error("no other agent can take over from this one any more", "reason", err)
			return nil, nil
		}
		after, err := newLink(conn)
		if err != nil {
			s.log.Warn("hand-over refused", "reason", err)
			continue
		}
		names, err := s.offer(ctx, after)
		if err == nil {
			return after, names
		}
		s.log.Warn("another agent wanted to take over, and went without: this one serves on", "reason", err)
		after.Close()
	}
}

// offer gives all sockets to another agent and waits until it wants to have them
// alone. The names are those that it goes on with.
func (s *Set) offer(ctx context.Context, after *link) ([]string, error) {
	hello, _, err := after.receive(ctx, replyTimeout, msgHello)
	if err != nil {
		return nil, err
	}
	if reason := s.objection(hello); reason != "" {
		return nil, errors.Join(errors.New(reason), after.send(message{Type: msgRefused, Reason: reason}, nil))
	}
	for name, sock := range s.sockets {
		for _, b := range sock.all() {
			m := message{Type: msgSocket, Name: name, Path: sock.spec.Path, Dev: b.file.dev, Ino: b.file.ino}
			if err := after.send(m, b.UnixListener); err != nil {
				return nil, err
			}
		}
	}
	if err := after.send(message{Type: msgEnd}, nil); err != nil {
		return nil, err
	}
	take, _, err := after.receive(ctx, takeTimeout, msgTake)
	if err != nil {
		return nil, err
	}
	s.log.Info("another agent takes over", "pid", hello.PID)
	return take.Names, nil
}

// objection is why an agent may not take over; "": it may.
func (s *Set) objection(hello message) string {
	switch {
	case hello.Version != handOverVersion:
		return fmt.Sprintf("the running agent's hand-over is version %d, the new one's %d: stop the one, then start the other", handOverVersion, hello.Version)
	case s.manager.address != "" && hello.Manager != s.manager.address:
		return "the running agent is a service, which would be started again: restart that (systemctl restart), which keeps its sockets too"
	}
	return ""
}

// all returns the current socket, and the former ones after it.
func (s *socket) all() []*bound {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*bound{s.current}, s.former...)
}

// release tells the other agent that the lock is free, and waits until it
// serves: not for long once ctx has ended.
func (s *Set) release(ctx context.Context, after *link, names []string) error {
	if err := after.send(message{Type: msgReleased}, nil); err != nil {
		return err
	}
	waiting, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	lateStop := context.AfterFunc(ctx, func() { time.AfterFunc(replyTimeout, stop) })
	defer lateStop()
	if _, _, err := after.receive(waiting, takeTimeout, msgReady); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.sockets {
		s.shared[name] = slices.Contains(names, name)
	}
	return nil
}

// listenHandOver listens for other agents, in place of what the one before left.
// The caller has the lock on data_dir.
func (s *Set) listenHandOver() (l *net.UnixListener, err error) {
	err = inDir(s.cfg.DataDir, handOverFile, func(path string) error {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		// Only the agent's own user gets into data_dir; the mode says it again.
		if l, err = net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"}); err != nil {
			return err
		}
		// The next agent removes the file, or has put its own there.
		l.SetUnlinkOnClose(false)
		return os.Chmod(path, 0o600)
	})
	if err != nil && l != nil {
		err = errors.Join(err, l.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("hand-over socket %s: %w", filepath.Join(s.cfg.DataDir, handOverFile), err)
	}
	return l, nil
}

// forgetHandOver removes the socket of the hand-over when the agent ends with
// nobody after it. The caller has the lock still.
func (s *Set) forgetHandOver() {
	path := filepath.Join(s.cfg.DataDir, handOverFile)
	if err := unix.Unlink(path); err != nil && !errors.Is(err, unix.ENOENT) {
		s.log.Debug("hand-over socket not removed", "reason", err)
	}
}
