package load

import (
	"cmp"
	"errors"
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// bulk moves bytes one way on all open connections, on as many at once as the order says.
func (g *generator) bulk(order Order) (Answer, error) {
	if len(g.conns) == 0 {
		return Answer{}, errors.New("bulk: no connection is open")
	}
	each := max(1, order.Bytes/int64(len(g.conns)))
	waiting := slices.Collect(maps.Values(g.conns))
	pending := len(waiting)
	next := func() error {
		if len(waiting) == 0 {
			return nil
		}
		c := waiting[0]
		waiting = waiting[1:]
		return g.begin(c, order.Upload, each)
	}
	for range cmp.Or(order.Conns, pending) {
		if err := next(); err != nil {
			return Answer{}, err
		}
	}
	turn := g.download
	if order.Upload {
		turn = g.upload
	}
	err := g.loop(&pending, func(c *conn) (bool, error) {
		done, err := turn(c)
		if done && err == nil {
			err = next()
		}
		return done, err
	})
	return Answer{Bytes: each * int64(len(g.conns))}, err
}

// begin starts a connection's part.
func (g *generator) begin(c *conn, upload bool, count int64) error {
	if upload {
		c.head, c.toSend, c.toGet = header(opUpload, count), count, 1
		return g.poll.change(c.fd, unix.EPOLLOUT)
	}
	c.toGet = count
	_, err := unix.Write(c.fd, header(opDownload, count)) // the first bytes in its buffer: all fit
	return err
}

// upload sends one block; done when the backend has acknowledged the last.
func (g *generator) upload(c *conn) (bool, error) {
	switch {
	case len(c.head) > 0:
		n, err := unix.Write(c.fd, c.head)
		c.head = c.head[max(0, n):]
		return false, err
	case c.toSend > 0:
		n, err := unix.Write(c.fd, g.block[:min(int64(len(g.block)), c.toSend)])
		if err != nil {
			return false, err
		}
		if c.toSend -= int64(n); c.toSend == 0 {
			return false, g.poll.change(c.fd, unix.EPOLLIN)
		}
		return false, nil
	default:
		return g.answered(c)
	}
}

// download takes what has come off the socket without looking at it: the kernel drops it uncopied (tcp(7), MSG_TRUNC).
func (g *generator) download(c *conn) (bool, error) {
	n, _, err := unix.Recvfrom(c.fd, g.block[:min(int64(len(g.block)), c.toGet)], unix.MSG_TRUNC)
	if err != nil {
		return false, err
	}
	if n == 0 {
		return false, errGone
	}
	c.toGet -= int64(n)
	return c.toGet == 0, nil
}
