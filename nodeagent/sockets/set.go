package sockets

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
)

// ErrTakenOver is the cause of the end of the context that [Set.Run] runs an
// agent with, where another agent takes its place.
var ErrTakenOver = errors.New("another agent takes over")

// Spec is one socket as configured.
type Spec struct {
	// Name is what the socket is called between one agent and the next, and in
	// systemd (FileDescriptorName=): unique, at most 255 printable bytes of
	// ASCII, without a colon.
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
	Log     *slog.Logger
}

// Set is all sockets of one agent.
type Set struct{}

// Open returns all sockets or none. It does not take the lock on data_dir yet,
// and where it takes them from a running agent, that one still serves: until
// [Set.Run], nothing has changed that Close does not undo.
func Open(ctx context.Context, cfg Config) (*Set, error) { return nil, errors.ErrUnsupported }

// Listener returns a listener on the socket of that name, nil if there is none.
// Closing it ends its Accept alone: the socket stays, and takes connections that
// wait for the next listener.
func (s *Set) Listener(name string) net.Listener { return nil }

// Run takes the lock on data_dir, from the agent it takes over from where there
// is one, and runs agent, which serves on the listeners and ends with its
// context. Meanwhile it keeps the sockets in systemd's hands, binds those anew
// whose files were deleted, and waits for an agent that wants to take over: then
// it ends agent's context with [ErrTakenOver], gives the lock away after agent
// has returned, and returns nil once the other serves. Should the other fail, it
// runs agent again.
func (s *Set) Run(ctx context.Context, agent func(context.Context) error) error { return nil }

// Ready says that the agent serves: to systemd, and to the agent it took over
// from. The status is a line for people.
func (s *Set) Ready(status string) {}

// Status tells systemd how the agent is, in a line for people.
func (s *Set) Status(status string) {}

// Close closes the sockets. Their files are removed, unless keep says otherwise,
// or systemd or another agent have the sockets now.
func (s *Set) Close(keep bool) error { return nil }
