package sockets

import (
	"context"
	"errors"
	"net"
	"sync"
)

// LockFile is the lock's, in data_dir.
const LockFile = "agent.lock"

// Run takes the lock on data_dir, from the agent it takes over from where there
// is one, and runs agent, which serves on the listeners and ends with its
// context. Meanwhile it keeps the sockets in systemd's hands, binds those anew
// whose files were deleted, and waits for an agent that wants to take over: then
// it ends agent's context with [ErrTakenOver], gives the lock away after agent
// has returned, and returns nil once the other serves. Should the other fail, it
// runs agent again.
func (s *Set) Run(ctx context.Context, agent func(context.Context) error) error {
	unlock, err := s.lock(ctx)
	for {
		if err != nil {
			return err
		}
		var after *successor
		if after, err = s.serve(ctx, agent); after == nil {
			return errors.Join(err, unlock())
		}
		if err != nil {
			s.log.Warn("the agent ended with an error while another takes over", "reason", err)
		}
		failed := errors.Join(unlock(), s.release(ctx, after.link, after.names), after.Close())
		switch {
		case failed == nil:
			s.log.Info("another agent serves now")
			return nil
		case ctx.Err() != nil: // it is to end anyhow; the files are left to the other
			s.share(true)
			return nil
		}
		s.log.Error("the agent that was to take over failed: this one serves again", "reason", failed)
		if unlock, err = s.relock(ctx); err != nil {
			s.share(true) // the other has the lock still: the files are its own
		}
		for _, sock := range s.sockets {
			sock.resume()
		}
	}
}

// successor is an agent that takes over.
type successor struct {
	*link
	names []string // of the sockets that it goes on with
}

// serve runs agent, and what looks after its sockets, until it ends: by itself,
// or as another agent takes over.
func (s *Set) serve(ctx context.Context, agent func(context.Context) error) (*successor, error) {
	handOver, err := s.listenHandOver()
	if err != nil {
		return nil, err
	}
	defer handOver.Close()
	for _, name := range s.unclaimed {
		if err := s.manager.forget(name); err != nil {
			s.log.Warn("service manager not told", "reason", err)
		}
	}
	for name, sock := range s.sockets {
		s.store(name, sock)
	}
	stopping := context.AfterFunc(ctx, func() { s.tell("STOPPING=1") })
	defer stopping()

	running, end := context.WithCancelCause(ctx)
	defer end(nil)
	beside, stop := context.WithCancel(ctx)
	defer stop()
	var after *successor
	var parts sync.WaitGroup
	parts.Go(func() { s.watch(beside, s.every) })
	parts.Go(func() { s.watchdog(beside) })
	parts.Go(func() {
		taker, names := s.serveHandOver(beside, handOver)
		if taker == nil {
			return
		}
		stop() // or a file that the other replaces would be put back
		for _, sock := range s.sockets {
			sock.pause()
		}
		after = &successor{link: taker, names: names}
		end(ErrTakenOver)
	})
	err = agent(running)
	stop()
	parts.Wait()
	if after == nil {
		s.forgetHandOver()
	}
	return after, err
}

func listeners(all []*bound) []*net.UnixListener {
	var ls []*net.UnixListener
	for _, b := range all {
		ls = append(ls, b.UnixListener)
	}
	return ls
}
