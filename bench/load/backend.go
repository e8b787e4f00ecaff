package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// ServeBackend is the program behind the proxies. It listens on a loopback port, writes its address and a newline to
// out, and serves until control, a pipe, has its end.
func ServeBackend(control *os.File, out io.Writer) error {
	alone()
	listener, addr, err := listenLoopback()
	if err != nil {
		return fmt.Errorf("backend: listen: %w", err)
	}
	b := &backend{listener: listener, conns: map[int32]*served{}, block: make([]byte, blockSize)}
	if b.poll, err = newPoller(); err != nil {
		return fmt.Errorf("backend: epoll: %w", err)
	}
	end := int(control.Fd())
	if err := errors.Join(b.poll.add(listener, unix.EPOLLIN), b.poll.add(end, unix.EPOLLIN)); err != nil {
		return fmt.Errorf("backend: epoll: %w", err)
	}
	if _, err := fmt.Fprintln(out, addr); err != nil {
		return err
	}
	for {
		ready, err := b.poll.wait(-1)
		if err != nil {
			return fmt.Errorf("backend: epoll: %w", err)
		}
		for _, event := range ready {
			switch c := b.conns[event.Fd]; {
			case event.Fd == int32(end):
				return nil
			case event.Fd == int32(listener):
				b.accept()
			case c != nil:
				b.turn(c)
			}
		}
	}
}

func listenLoopback() (fd int, addr string, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, "", err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, "", err
	}
	if err := unix.Listen(fd, 4096); err != nil {
		return 0, "", err
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return 0, "", err
	}
	return fd, fmt.Sprintf("127.0.0.1:%d", name.(*unix.SockaddrInet4).Port), nil
}

type backend struct {
	listener int
	poll     *poller
	conns    map[int32]*served
	block    []byte
}

// served is one connection: the operation under way, if any, and what is left of it.
type served struct {
	fd      int
	head    [headerSize]byte
	got     int // of head
	op      byte
	left    int64
	owed    []byte // read, or to be answered, and not written yet
	waiting bool   // for room to write
}

var errEnded = errors.New("ended")

func (b *backend) accept() {
	for {
		fd, _, err := unix.Accept4(b.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		if b.poll.add(fd, unix.EPOLLIN) != nil {
			unix.Close(fd)
			continue
		}
		b.conns[int32(fd)] = &served{fd: fd}
	}
}

// turn does what a connection can do now, one block at most, so that all get their turn.
func (b *backend) turn(c *served) {
	err := b.step(c)
	if err == nil || wouldBlock(err) {
		err = b.watch(c)
	}
	if err != nil { // whatever it is, the other end is told by the close
		delete(b.conns, int32(c.fd))
		unix.Close(c.fd)
	}
}

// watch waits for room to write or for bytes to read.
func (b *backend) watch(c *served) error {
	room := len(c.owed) > 0 || c.op == opDownload
	if room == c.waiting {
		return nil
	}
	c.waiting = room
	if room {
		return b.poll.change(c.fd, unix.EPOLLOUT)
	}
	return b.poll.change(c.fd, unix.EPOLLIN)
}

func (b *backend) step(c *served) error {
	if len(c.owed) > 0 {
		return c.flush()
	}
	if c.op == opDownload {
		return b.download(c)
	}
	n, err := unix.Read(c.fd, b.block)
	if err != nil {
		return err
	}
	if n == 0 {
		return errEnded
	}
	for data := b.block[:n]; len(data) > 0; {
		if data, err = c.take(data); err != nil {
			return err
		}
	}
	return c.flush()
}

// take uses what came as far as one part of an operation goes, and returns the rest.
func (c *served) take(data []byte) ([]byte, error) {
	if c.op == 0 {
		n := copy(c.head[c.got:], data)
		if c.got += n; c.got == headerSize {
			return data[n:], c.begin()
		}
		return data[n:], nil
	}
	n := min(int64(len(data)), c.left)
	c.left -= n
	switch c.op {
	case opEcho:
		c.owed = append(c.owed, data[:n]...)
	case opDownload:
		return nil, errors.New("bytes during a download")
	}
	if c.left == 0 {
		if c.op == opUpload {
			c.owed = append(c.owed, acknowledged)
		}
		c.op = 0
	}
	return data[n:], nil
}

// begin reads a whole header.
func (c *served) begin() error {
	c.op, c.left, c.got = c.head[0], int64(binary.BigEndian.Uint64(c.head[1:])), 0
	switch {
	case c.op == opEcho && c.left > headerSize: // the header comes back as well
		c.left -= headerSize
		c.owed = append(c.owed, c.head[:]...)
		return nil
	case (c.op == opUpload || c.op == opDownload) && c.left > 0:
		return nil
	default:
		return fmt.Errorf("operation %q with %d bytes", c.op, c.left)
	}
}

// flush writes what there is room for.
func (c *served) flush() error {
	if len(c.owed) == 0 {
		return nil
	}
	n, err := unix.Write(c.fd, c.owed)
	if n > 0 {
		c.owed = append(c.owed[:0], c.owed[n:]...)
	}
	return err
}

func (b *backend) download(c *served) error {
	n, err := unix.Write(c.fd, b.block[:min(int64(len(b.block)), c.left)])
	if n > 0 {
		if c.left -= int64(n); c.left == 0 {
			c.op = 0
		}
	}
	return err
}
