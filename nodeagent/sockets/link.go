package sockets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-mtls/lanyard/internal/unixsock"
)

// The hand-over, on a socket of messages (SOCK_SEQPACKET) in data_dir. The new
// agent says hello; the old one sends each socket, and end; it serves on. Only
// when the new one has all it needs, it says take: the old one accepts no more,
// ends its streams, releases the lock and says released; it ends when the new one
// says ready, which serves by then. Where the new one ends before that, the old
// one serves again: it has its sockets still.
const (
	msgHello    = "hello"
	msgSocket   = "socket"
	msgEnd      = "end"
	msgTake     = "take"
	msgReleased = "released"
	msgReady    = "ready"
	msgRefused  = "refused"
)

const (
	// handOverVersion is that of the messages. Who gets another refuses.
	handOverVersion = 1
	handOverFile    = "takeover.sock"
	maxMessage      = 8 << 10 // bytes
	// replyTimeout is for what the other side does at once.
	replyTimeout = 5 * time.Second
	// takeTimeout is how long the new agent may take from the sockets to take, and
	// from the lock to ready; releaseTimeout how long the old one may for what it
	// has to end.
	takeTimeout    = time.Minute
	releaseTimeout = time.Minute
)

type message struct {
	Type    string `json:"type"`
	Version int    `json:"version,omitempty"` // hello
	PID     int    `json:"pid,omitempty"`     // hello: for people
	Manager string `json:"manager,omitempty"` // hello: the new agent's service manager
	// Of a socket: its name, path and file. Former ones have lost their file.
	Name string `json:"name,omitempty"`
	Path string `json:"path,omitempty"`
	Dev  uint64 `json:"dev,omitempty"`
	Ino  uint64 `json:"ino,omitempty"`
	// Names are the sockets that the new agent took.
	Names  []string `json:"names,omitempty"`
	Reason string   `json:"reason,omitempty"` // refused
}

// link is a connection between two agents. Both know that the other is root or
// their own user.
type link struct{ *net.UnixConn }

func newLink(conn *net.UnixConn) (*link, error) {
	if err := unixsock.CheckPeer(conn); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &link{conn}, nil
}

func (l *link) send(m message, socket *net.UnixListener) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := l.SetWriteDeadline(time.Now().Add(replyTimeout)); err != nil {
		return err
	}
	if socket == nil {
		return unixsock.Pass(l.UnixConn, data, nil)
	}
	return unixsock.Pass(l.UnixConn, data, socket)
}

// receive waits for a message of one of the types wanted, no longer than ctx
// lives.
func (l *link) receive(ctx context.Context, within time.Duration, want ...string) (message, *os.File, error) {
	if err := l.SetReadDeadline(time.Now().Add(within)); err != nil {
		return message{}, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = l.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, maxMessage)
	n, file, err := unixsock.Receive(l.UnixConn, buf)
	if errors.Is(err, io.EOF) {
		err = errors.New("it has ended, or gave up")
	}
	if err != nil {
		return message{}, nil, err
	}
	m, err := parseMessage(buf[:n], file != nil, want)
	if err != nil && file != nil {
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		return message{}, nil, err
	}
	return m, file, nil
}

// parseMessage reads a message, which is to be of one of the types wanted.
func parseMessage(data []byte, withFile bool, want []string) (message, error) {
	var m message
	if err := json.Unmarshal(data, &m); err != nil {
		return message{}, fmt.Errorf("message that is none: %w", err)
	}
	switch {
	case m.Type == msgRefused:
		return message{}, fmt.Errorf("refused: %.200q", m.Reason)
	case !slices.Contains(want, m.Type):
		return message{}, fmt.Errorf("message %.20q instead of %q", m.Type, want)
	case withFile != (m.Type == msgSocket):
		return message{}, fmt.Errorf("message %q: with a file %v", m.Type, withFile)
	}
	return m, nil
}

// inDir calls do with a path of a file in dir that fits into a socket's address
// however long dir's is.
func inDir(dir, file string, do func(path string) error) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("data_dir %s: %w", dir, err)
	}
	defer unix.Close(fd)
	return do(filepath.Join("/proc/self/fd", strconv.Itoa(fd), file))
}
