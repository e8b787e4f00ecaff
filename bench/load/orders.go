package load

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// messageSize is that of a round trip.
	messageSize = 64

	// opening is how many connections are being opened at any time.
	opening = 64
)

// open opens connections, a few at a time, and leaves them open.
func (g *generator) open(order Order) (Answer, error) {
	addr, err := netip.ParseAddrPort(order.Addr)
	if err != nil {
		return Answer{}, err
	}
	begun, pending := 0, 0
	start := func() error {
		_, err := g.dial(addr)
		if err == nil {
			begun++
			pending++
		}
		return err
	}
	for range min(order.Conns, opening) {
		if err := start(); err != nil {
			return Answer{}, err
		}
	}
	var times samples
	err = g.loop(&pending, func(c *conn) (bool, error) {
		done, err := g.first(c)
		if !done || err != nil {
			return false, err
		}
		times.add(c.begun)
		if begun < order.Conns {
			err = start()
		}
		return true, err
	})
	if err != nil {
		err = fmt.Errorf("after %d connections: %w", len(times), err)
	}
	return times.answer(), err
}

// connect opens and closes connections, each after one round trip, so many at a time.
func (g *generator) connect(order Order) (Answer, error) {
	addr, err := netip.ParseAddrPort(order.Addr)
	if err != nil {
		return Answer{}, err
	}
	end := time.Now().Add(order.For)
	pending := 0
	for range order.Conns {
		if _, err := g.dial(addr); err != nil {
			return Answer{}, err
		}
		pending++
	}
	var times samples
	err = g.loop(&pending, func(c *conn) (bool, error) {
		done, err := g.first(c)
		if !done || err != nil {
			return false, err
		}
		g.drop(c)
		if times.add(c.begun).After(end) {
			return true, nil
		}
		_, err = g.dial(addr)
		return false, err
	})
	return times.answer(), err
}

// roundTrips sends a message on each open connection, and the next when it came back.
func (g *generator) roundTrips(order Order) (Answer, error) {
	end := time.Now().Add(order.For)
	times := make(samples, 0, 1<<17)
	pending := 0
	for _, c := range g.conns {
		if err := g.ask(c, time.Now()); err != nil {
			return Answer{}, err
		}
		pending++
	}
	err := g.loop(&pending, func(c *conn) (bool, error) {
		done, err := g.answered(c)
		if !done || err != nil {
			return false, err
		}
		now := times.add(c.begun)
		if now.After(end) {
			return true, nil
		}
		return false, g.ask(c, now)
	})
	return times.answer(), err
}

// ask sends a message on a connection at rest, whose socket has room for it.
func (g *generator) ask(c *conn, now time.Time) error {
	c.begun, c.toGet = now, messageSize
	_, err := unix.Write(c.fd, g.message)
	return err
}

// samples are durations, in the order they came.
type samples []time.Duration

// add takes what has passed since then, and returns now.
func (s *samples) add(then time.Time) time.Time {
	now := time.Now()
	*s = append(*s, now.Sub(then))
	return now
}

func (s samples) answer() Answer {
	slices.Sort(s)
	if len(s) == 0 {
		return Answer{}
	}
	return Answer{Ops: int64(len(s)), P50: s[len(s)/2], P99: s[len(s)*99/100]}
}
