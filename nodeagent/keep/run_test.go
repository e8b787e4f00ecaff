package keep

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// cache holds what it is told to.
type cache struct {
	mu      sync.Mutex
	state   *State
	version uint64
	news    chan struct{}
}

func (c *cache) News() <-chan struct{} { return c.news }

func (c *cache) Version() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.version
}

func (c *cache) Holds() *State {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == nil {
		return nil
	}
	s := *c.state
	return &s
}

func (c *cache) change(s *State, news bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = s
	c.version++
	if news {
		select {
		case c.news <- struct{}{}:
		default:
		}
	}
}

func TestRunWritesWhatIsNewSoonAndRenewalsSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "data")
		f, c := Open(dir), &cache{news: make(chan struct{}, 1)}
		log := new(lines)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			Run(ctx, Config{File: f, Cache: c, AgentID: func() spiffeid.ID { return agent }, Log: slog.New(slog.NewTextHandler(log, nil))})
		})
		kept := func(after time.Duration) int {
			time.Sleep(after)
			synctest.Wait()
			s, err := f.Load(agent)
			if err != nil {
				t.Fatal(err)
			}
			if s == nil {
				return -1
			}
			return len(s.SVIDs)
		}
		s := state(t)
		some := func(n int) *State { one := *s; one.SVIDs = s.SVIDs[:n]; return &one }

		// The directory is not there, as a full disk has no room: told once.
		c.change(some(0), true)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if n := strings.Count(log.String(), "can't be kept"); n != 1 {
			t.Errorf("told %d times: %s", n, log.String())
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if n := kept(seldom); n != 0 {
			t.Errorf("not written once there was room: %d", n)
		}
		c.change(some(1), true)
		if n := kept(soon / 2); n != 0 {
			t.Errorf("written at once: %d", n)
		}
		if n := kept(soon); n != 1 {
			t.Errorf("news not written: %d", n)
		}
		c.change(some(2), false)
		if n := kept(seldom / 2); n != 1 {
			t.Errorf("a renewal written soon: %d", n)
		}
		if n := kept(seldom); n != 2 {
			t.Errorf("a renewal not written: %d", n)
		}
		c.change(some(1), false)
		cancel()
		running.Wait()
		if n := kept(0); n != 1 {
			t.Errorf("not written at the end: %d", n)
		}
	})
}

// lines is a log.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
