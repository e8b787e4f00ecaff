package traffic

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Talk is one conversation.
type Talk struct {
	ID     uint64
	Local  string // the client's own address; empty for UNIX sockets, and where the connection was reset at once
	opened time.Time
	client *side
	there  chan struct{} // closed when it has arrived at the backend

	mu      sync.Mutex
	backend *side  // nil until it arrived at the backend
	excuse  string // why it needn't end well
}

// open dials and starts the client's side, which begins with the conversation's number.
func (t *Traffic) open(ctx context.Context, addr string) (*Talk, error) {
	network := "tcp"
	if path, ok := cutUnix(addr); ok {
		network, addr = "unix", path
	}
	talk := &Talk{opened: time.Now(), client: &side{done: make(chan struct{})}, there: make(chan struct{})}
	c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case errors.Is(err, syscall.ECONNRESET): // it was made, and reset before Go had looked
		talk.client.read, talk.client.ended = err, time.Now()
		close(talk.client.done)
	case err != nil:
		return nil, err
	case t.finished:
		return nil, errors.Join(errors.New("opened after the finish"), c.Close())
	}
	talk.ID = uint64(len(t.talks) + 1)
	t.talks[talk.ID] = talk
	if err != nil {
		return talk, nil
	}
	_ = c.SetDeadline(time.Now().Add(t.options.Limit)) // an open socket takes any
	talk.Local, talk.client.conn = c.LocalAddr().String(), c.(conn)
	t.running.Go(func() {
		var id [8]byte
		binary.BigEndian.PutUint64(id[:], talk.ID)
		_, _ = c.Write(id[:]) // an error comes again
		talk.client.run(talk.ID, toBackend, toClient, t.options.Every, t.stop)
	})
	return talk, nil
}

// Excuse says that a conversation needn't end well, and why. What arrives must be right all the same.
func (talk *Talk) Excuse(why string) {
	talk.mu.Lock()
	defer talk.mu.Unlock()
	talk.excuse = why
}

// Ended is closed when the client's side has ended.
func (talk *Talk) Ended() <-chan struct{} { return talk.client.done }

// Arrived tells whether a conversation has reached the backend.
func (talk *Talk) Arrived() bool {
	select {
	case <-talk.there:
		return true
	default:
		return false
	}
}

// Reset ends the client's side as a crash does, with a reset.
func (talk *Talk) Reset() {
	talk.Excuse("its client crashed")
	if talk.client.conn != nil {
		reset(talk.client.conn)
	}
}

// Vanish ends the client's side without a word on the wire: neither FIN nor reset. It needs CAP_NET_ADMIN.
func (talk *Talk) Vanish() error {
	c, ok := talk.client.conn.(*net.TCPConn)
	if !ok {
		return fmt.Errorf("vanish: %T is not TCP", talk.client.conn)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	// A socket in repair mode is closed without telling its peer: tcp(7), TCP_REPAIR.
	err = raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, 1) })
	if err = errors.Join(err, set); errors.Is(err, net.ErrClosed) {
		return nil // it has ended before
	} else if err != nil {
		return fmt.Errorf("vanish: TCP_REPAIR: %w", err)
	}
	talk.Excuse("its client vanished")
	return c.Close()
}

// NeedsPrivilege tells whether an error of Vanish says that this user may not.
func NeedsPrivilege(err error) bool {
	return errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES)
}

func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	c.Close()
}
