package load

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Order is one thing the generator does. Its fields are those of the orders that name them.
type Order struct {
	Do     string        // open, roundtrips, bulk, connect, close
	Addr   string        // open, connect: IP:port
	Conns  int           // open: so many more, each with one round trip; connect, bulk: so many at a time (bulk: all if zero)
	For    time.Duration // roundtrips, connect: go on so long
	Bytes  int64         // bulk: over all connections together, the same on each
	Upload bool          // bulk: towards the backend
}

// Answer is what came of an order.
type Answer struct {
	Ops      int64         // round trips, or connections
	Bytes    int64         // in the direction of a bulk order
	Took     time.Duration // the whole order
	P50, P99 time.Duration // of a round trip, or of a connection with one
	Err      string
}

// Generate carries out the orders that come as lines of JSON, one after the other, until they end; it answers each with
// a line. Connections that are open stay so from one order to the next.
func Generate(orders io.Reader, answers io.Writer) error {
	alone()
	poll, err := newPoller()
	if err != nil {
		return fmt.Errorf("load: epoll: %w", err)
	}
	g := &generator{poll: poll, conns: map[int32]*conn{}, message: Echo(messageSize), block: make([]byte, blockSize)}
	lines := bufio.NewScanner(orders)
	out := json.NewEncoder(answers)
	for lines.Scan() {
		var order Order
		if err := json.Unmarshal(lines.Bytes(), &order); err != nil {
			return fmt.Errorf("load: order %q: %w", lines.Text(), err)
		}
		begun := time.Now()
		answer, err := g.carryOut(order)
		answer.Took = time.Since(begun)
		if err != nil {
			answer.Err = err.Error()
		}
		if err := out.Encode(answer); err != nil {
			return err
		}
	}
	return lines.Err()
}

type generator struct {
	poll    *poller
	conns   map[int32]*conn // open and at rest between orders
	message []byte          // of a round trip
	block   []byte          // for whatever comes, and as filler
}

// conn is one connection and how far it is with what it does.
type conn struct {
	fd        int
	begun     time.Time // the round trip under way, or the connection
	connected bool
	head      []byte // to be sent ahead of toSend
	toSend    int64
	toGet     int64
}

var errGone = errors.New("the proxy closed the connection")

func (g *generator) carryOut(order Order) (Answer, error) {
	switch order.Do {
	case "open":
		return g.open(order)
	case "roundtrips":
		return g.roundTrips(order)
	case "bulk":
		return g.bulk(order)
	case "connect":
		return g.connect(order)
	case "close":
		for fd, c := range g.conns {
			delete(g.conns, fd)
			unix.Close(c.fd)
		}
		return Answer{}, nil
	default:
		return Answer{}, fmt.Errorf("unknown order %q", order.Do)
	}
}

// dial begins a connection, with one round trip to follow.
func (g *generator) dial(addr netip.AddrPort) (*conn, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	c := &conn{fd: fd, begun: time.Now(), toGet: messageSize}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	err = unix.Connect(fd, &unix.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())})
	if err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return nil, fmt.Errorf("connect %v: %w", addr, err)
	}
	if err := g.poll.add(fd, unix.EPOLLOUT); err != nil {
		unix.Close(fd)
		return nil, err
	}
	g.conns[int32(fd)] = c
	return c, nil
}

func (g *generator) drop(c *conn) {
	delete(g.conns, int32(c.fd))
	unix.Close(c.fd)
}

// loop hands what is ready to turn, until none of the pending connections is left. turn says when one is done.
func (g *generator) loop(pending *int, turn func(c *conn) (bool, error)) error {
	for *pending > 0 {
		ready, err := g.poll.wait(patience)
		if err != nil {
			return err
		}
		if len(ready) == 0 {
			return fmt.Errorf("nothing happened for %v, and %d connections are not done", patience, *pending)
		}
		for _, event := range ready {
			c := g.conns[event.Fd]
			if c == nil {
				continue
			}
			done, err := turn(c)
			if err != nil && !wouldBlock(err) {
				return err
			}
			if done {
				*pending--
			}
		}
	}
	return nil
}

// first goes on with a connection's first round trip; done when it is over.
func (g *generator) first(c *conn) (done bool, err error) {
	if !c.connected {
		if code, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 {
			return false, fmt.Errorf("connect: %w", errors.Join(err, unix.Errno(code)))
		}
		c.connected = true
		if _, err := unix.Write(c.fd, g.message); err != nil { // the first bytes on a socket: all fit
			return false, err
		}
		return false, g.poll.change(c.fd, unix.EPOLLIN)
	}
	return g.answered(c)
}

// answered reads what has come of a message; done when all has.
func (g *generator) answered(c *conn) (done bool, err error) {
	n, err := unix.Read(c.fd, g.block[:c.toGet])
	switch {
	case err != nil:
		return false, err
	case n == 0:
		return false, errGone
	}
	c.toGet -= int64(n)
	return c.toGet == 0, nil
}
