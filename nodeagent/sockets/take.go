package sockets

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-mtls/lanyard/internal/durable"
)

// fromAgent gets the sockets of the agent that runs on data_dir; none where there
// is no such agent. That one goes on until [Set.lock].
func (s *Set) fromAgent(ctx context.Context) ([]*inherited, error) {
	before, err := dialAgent(s.cfg.DataDir)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) {
		s.log.Info("no agent runs here that could be taken over from", "data_dir", s.cfg.DataDir)
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("take over from the agent on %s: %w", s.cfg.DataDir, err)
	}
	all, err := before.sockets(ctx, message{Type: msgHello, Version: handOverVersion, PID: os.Getpid(), Manager: s.manager.address})
	if err != nil {
		for _, in := range all {
			in.Close()
		}
		return nil, errors.Join(fmt.Errorf("take over from the agent on %s: %w", s.cfg.DataDir, err), before.Close())
	}
	s.before = before
	return all, nil
}

func dialAgent(dir string) (l *link, err error) {
	err = inDir(dir, handOverFile, func(path string) error {
		conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
		if err == nil {
			l, err = newLink(conn)
		}
		return err
	})
	return l, err
}

// sockets asks for all sockets.
func (l *link) sockets(ctx context.Context, hello message) ([]*inherited, error) {
	if err := l.send(hello, nil); err != nil {
		return nil, err
	}
	var all []*inherited
	for {
		m, file, err := l.receive(ctx, replyTimeout, msgSocket, msgEnd)
		if err != nil {
			return all, err
		}
		if m.Type == msgEnd {
			return all, nil
		}
		socket, err := listenerOf(file)
		if err != nil {
			return all, fmt.Errorf("socket %s: %w", m.Name, err)
		}
		all = append(all, &inherited{name: m.Name, bound: &bound{UnixListener: socket, file: fileID{dev: m.Dev, ino: m.Ino}}})
	}
}

// lock takes the lock on data_dir. Where there is an agent to take over from, it
// is told to end first.
func (s *Set) lock(ctx context.Context) (unlock func() error, err error) {
	path := filepath.Join(s.cfg.DataDir, LockFile)
	s.mu.Lock()
	before := s.before
	s.mu.Unlock()
	if before == nil {
		return durable.Lock(path)
	}
	var names []string
	for name := range s.sockets {
		names = append(names, name)
	}
	if err = before.send(message{Type: msgTake, Names: names}, nil); err == nil {
		_, _, err = before.receive(ctx, releaseTimeout, msgReleased)
	}
	if err != nil {
		return nil, fmt.Errorf("the agent that is to be taken over from has not stopped: %w", err)
	}
	return durable.Lock(path)
}

// relock takes the lock again after another agent failed to take over: that one
// has it until it is gone.
func (s *Set) relock(ctx context.Context) (func() error, error) {
	end := time.Now().Add(releaseTimeout)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		unlock, err := durable.Lock(filepath.Join(s.cfg.DataDir, LockFile))
		if !errors.Is(err, durable.ErrLocked) || time.Now().After(end) {
			return unlock, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-tick.C:
		}
	}
}
