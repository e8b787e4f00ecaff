package harness

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// Count is what a load did so far.
type Count struct {
	Requests, NewConns, Failed int
	Failures                   []string // the first ones, in words
}

// Load sends HTTP requests to one address at a steady rate: every other one on a new connection, the rest on
// connections that are kept open and must stay so. Nothing is tried again, so each failure counts.
type Load struct {
	addr string
	stop context.CancelFunc
	wait sync.WaitGroup

	mu    sync.Mutex
	count Count
}

const (
	keptConns      = 4
	requestLimit   = 5 * time.Second // for a connection and its answer
	failuresWorded = 5
)

// StartLoad starts sending; the caller ends it by Stop.
func StartLoad(ctx context.Context, addr string, perSecond int) *Load {
	ctx, stop := context.WithCancel(ctx)
	l := &Load{addr: addr, stop: stop}
	kept := make(chan struct{}, perSecond) // a second's worth may wait
	for range keptConns {
		l.wait.Go(func() { l.keep(kept) })
	}
	l.wait.Go(func() {
		defer close(kept)
		tick := time.NewTicker(time.Second / time.Duration(perSecond))
		defer tick.Stop()
		for fresh := false; ; fresh = !fresh {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if fresh {
				l.wait.Go(l.once)
				continue
			}
			select {
			case kept <- struct{}{}:
			default:
				l.record(false, fmt.Errorf("a second's worth of requests waits for the kept connections"))
			}
		}
	})
	return l
}

// Stop ends the load, waits for the requests under way, and returns the final count.
func (l *Load) Stop() Count {
	l.stop()
	l.wait.Wait()
	return l.Count()
}

// Count is the count so far.
func (l *Load) Count() Count {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}

func (l *Load) record(fresh bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count.Requests++
	if fresh {
		l.count.NewConns++
	}
	if err == nil {
		return
	}
	l.count.Failed++
	if len(l.count.Failures) < failuresWorded {
		l.count.Failures = append(l.count.Failures, time.Now().Format("15:04:05.000 ")+err.Error())
	}
}

// once sends one request on a connection of its own.
func (l *Load) once() {
	conn, err := net.DialTimeout("tcp", l.addr, requestLimit)
	if err == nil {
		err = ask(conn, bufio.NewReader(conn))
		conn.Close()
	}
	if err != nil {
		err = fmt.Errorf("on a new connection: %w", err)
	}
	l.record(true, err)
}

// keep sends a request for each turn, on one connection as long as it lives.
func (l *Load) keep(turns <-chan struct{}) {
	var conn net.Conn
	var answers *bufio.Reader
	asked := 0
	for range turns {
		if conn == nil {
			var err error
			if conn, err = net.DialTimeout("tcp", l.addr, requestLimit); err != nil {
				l.record(false, err)
				conn = nil
				continue
			}
			answers, asked = bufio.NewReader(conn), 0
		}
		err := ask(conn, answers)
		if asked++; err != nil {
			err = fmt.Errorf("request %d on a kept connection: %w", asked, err)
			conn.Close()
			conn = nil
		}
		l.record(false, err)
	}
	if conn != nil {
		conn.Close()
	}
}

// ask sends one request and reads its answer.
func ask(conn net.Conn, answers *bufio.Reader) error {
	if err := conn.SetDeadline(time.Now().Add(requestLimit)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: web\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(answers, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxBody)); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", resp.Status)
	}
	return nil
}
