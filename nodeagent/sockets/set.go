package sockets

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ErrTakenOver is the cause of the end of the context that [Set.Run] runs an
// agent with, where another agent takes its place.
var ErrTakenOver = errors.New("another agent takes over")

// Spec is one socket as configured.
type Spec struct {
	// Name is what the socket is called between one agent and the next, and in
	// systemd (FDNAME=): unique, at most 255 printable bytes of ASCII, without a
	// colon.
	Name string
	// Path is that of the socket's file; its parent is made where it is missing.
	Path string
	Mode fs.FileMode
	// UID and GID are whom the file is given to; -1 leaves it.
	UID, GID int
}

// Config is what to listen on.
type Config struct {
	Specs []Spec
	// TakeOver takes the sockets and the lock from the agent that runs on
	// DataDir, where one does, and which then ends.
	TakeOver bool
	// DataDir is the agent's own directory (0700), which the lock and the socket
	// of the hand-over are in.
	DataDir string
	// Alive says whether the agent still does its work: while it returns an
	// error, systemd's watchdog is not told that all is well. May be nil.
	Alive func(context.Context) error
	// Log may be nil.
	Log *slog.Logger
}

// Set is all sockets of one agent.
type Set struct {
	cfg     Config
	log     *slog.Logger
	manager manager
	sockets map[string]*socket
	every   time.Duration // between two looks at the files
	// unclaimed are names of what the service manager has, and nobody wants.
	unclaimed []string

	mu     sync.Mutex
	before *link // the agent that this one takes over from, until ready
	// shared are the names of the sockets that the service manager or another
	// agent has too: their files outlive this agent.
	shared map[string]bool
}

// Open returns all sockets or none. It does not take the lock on data_dir yet,
// and where it takes them from a running agent, that one still serves: until
// [Set.Run], nothing has changed that Close does not undo.
func Open(ctx context.Context, cfg Config) (*Set, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Set{
		cfg: cfg, log: cfg.Log, manager: getenvManager(), every: watchInterval,
		sockets: map[string]*socket{}, shared: map[string]bool{},
	}
	if err := checkSpecs(cfg.Specs); err != nil {
		return nil, err
	}
	all := s.fromManager()
	if cfg.TakeOver {
		given, err := s.fromAgent(ctx)
		all = append(all, given...)
		if err != nil {
			s.drop(all, nil)
			return nil, err
		}
	}
	used := map[*net.UnixListener]bool{}
	for _, spec := range cfg.Specs {
		if err := s.open(spec, all, used); err != nil {
			s.drop(all, used)
			return nil, errors.Join(err, s.Close(false))
		}
	}
	s.drop(all, used)
	return s, nil
}

// open gets one socket, by adopting it or by binding it.
func (s *Set) open(spec Spec, all []*inherited, used map[*net.UnixListener]bool) error {
	sock, former, err := adopt(spec, all)
	if err != nil {
		return err
	}
	if sock == nil {
		fresh, err := bind(spec)
		if err != nil {
			return err
		}
		sock = newSocket(spec, fresh)
	} else {
		used[sock.current.UnixListener] = true
		s.shared[spec.Name] = true
	}
	for _, b := range former {
		used[b.UnixListener] = true
		sock.keep(b)
	}
	s.sockets[spec.Name] = sock
	return nil
}

// drop closes what was inherited and is not used.
func (s *Set) drop(all []*inherited, used map[*net.UnixListener]bool) {
	for _, in := range all {
		if used[in.UnixListener] {
			continue
		}
		if s.sockets[in.name] == nil {
			s.unclaimed = append(s.unclaimed, in.name)
		}
		if !in.twice {
			s.log.Warn("a socket that was passed on is not used", "name", in.name, "path", in.Addr())
		}
		in.Close()
	}
}

func checkSpecs(specs []Spec) error {
	seen := map[string]bool{}
	for _, spec := range specs {
		printable := !strings.ContainsFunc(spec.Name, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' })
		switch {
		case spec.Name == "" || len(spec.Name) > 255 || !printable:
			return fmt.Errorf("socket name %q: want 1 to 255 printable characters of ASCII, without a colon", spec.Name)
		case seen[spec.Name]:
			return fmt.Errorf("two sockets are called %q", spec.Name)
		case spec.Path == "":
			return fmt.Errorf("socket %q has no path", spec.Name)
		}
		seen[spec.Name] = true
	}
	return nil
}

// Listener returns a listener on the socket of that name, nil if there is none.
// Closing it ends its Accept alone: the socket stays, and takes connections that
// wait for the next listener. There may be one at a time.
func (s *Set) Listener(name string) net.Listener {
	sock := s.sockets[name]
	if sock == nil {
		return nil
	}
	return &listener{socket: sock, closed: make(chan struct{})}
}

// Ready says that the agent serves: to systemd, and to the agent it took over
// from. The status is a line for people.
func (s *Set) Ready(status string) {
	s.mu.Lock()
	before := s.before
	s.before = nil
	s.mu.Unlock()
	lines := []string{"READY=1", "STATUS=" + line(status)}
	if before != nil {
		lines = append(lines, "MAINPID="+strconv.Itoa(os.Getpid()))
		if err := errors.Join(before.send(message{Type: msgReady}, nil), before.Close()); err != nil {
			s.log.Warn("the agent that was taken over from cannot be told that this one serves", "reason", err)
		}
		s.share(false)
	}
	s.tell(lines...)
}

// share says that others have the sockets too, or have them no more.
func (s *Set) share(with bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.sockets {
		s.shared[name] = with
	}
}

// Status tells systemd how the agent is, in a line for people.
func (s *Set) Status(status string) { s.tell("STATUS=" + line(status)) }

// tell tells the service manager; that it can't be told does not stop an agent.
func (s *Set) tell(lines ...string) {
	if err := s.manager.tell(nil, lines...); err != nil {
		s.log.Warn("service manager not told", "reason", err)
	}
}

// Close closes the sockets. Their files are removed, unless keep says otherwise,
// or systemd or another agent have the sockets now.
func (s *Set) Close(keep bool) error {
	s.mu.Lock()
	before, shared := s.before, maps.Clone(s.shared)
	s.before = nil
	s.mu.Unlock()
	var err error
	for name, sock := range s.sockets {
		err = errors.Join(err, sock.close(!keep && !shared[name]))
	}
	if before != nil {
		err = errors.Join(err, before.Close())
	}
	return err
}
