package sockets

import (
	"context"
	"errors"
	"io/fs"
	"time"
)

// watchInterval is how often the sockets' files are looked at. Looking is one
// system call a socket; inotify would say it sooner, but not when a directory
// above is moved, or another file system mounted over it.
const watchInterval = time.Second

// watch binds a socket anew whose file was removed or replaced, until ctx ends.
func (s *Set) watch(ctx context.Context, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	told := map[string]string{} // what was logged last, by name: once is enough
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for name, sock := range s.sockets {
			err := s.look(name, sock)
			text := ""
			if err != nil {
				text = err.Error()
			}
			if text != "" && told[name] != text {
				s.log.Error("a socket's file is gone or another's, and cannot be put back: trying on", "name", name, "path", sock.spec.Path, "reason", err)
			}
			told[name] = text
		}
	}
}

// look binds one socket anew, if that is needed. The old one is served on: a bind
// mount may hold its file.
func (s *Set) look(name string, sock *socket) error {
	now, err := fileAt(sock.spec.Path)
	was := sock.all()[0].file
	if err == nil && now == was {
		return nil
	}
	reason := "replaced"
	if errors.Is(err, fs.ErrNotExist) {
		reason = "deleted"
	}
	fresh, err := bind(sock.spec)
	if err != nil {
		return err
	}
	sock.replace(fresh)
	s.log.Warn("a socket's file was "+reason+": bound anew", "name", name, "path", sock.spec.Path)
	s.store(name, sock)
	return nil
}

// store puts a socket into the service manager's hands.
func (s *Set) store(name string, sock *socket) {
	if s.manager.address == "" {
		return
	}
	err := s.manager.store(name, listeners(sock.all())...)
	if err != nil {
		s.log.Warn("socket not stored with the service manager: its file will not outlive this agent", "name", name, "reason", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shared[name] = s.shared[name] || err == nil
}
