package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/changesv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// changesTold is how many changes the latency is measured of.
const changesTold = 200

// watcher is an agent on a stream.
type watcher struct {
	*agent
	config *tls.Config
	told   chan string // IDs of entries
	resume []byte
	resets int
}

// watch follows a stream until ctx ends or it is cut, and tells of each complete change. first is called at the first.
func (w *watcher) watch(ctx context.Context, first func()) error {
	stream, err := changesv1.NewChangesClient(w.conn).Watch(ctx, &changesv1.WatchRequest{Resume: w.resume, IdTemplates: true})
	if err != nil {
		return err
	}
	for {
		resp, err := stream.Recv()
		if err != nil {
			return err
		}
		if resp.GetReset_() {
			w.resets++
		}
		for _, e := range resp.GetEntries() {
			select {
			case w.told <- e.GetId():
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if resp.GetComplete() {
			w.resume = resp.GetResume()
			first()
			first = func() {}
		}
	}
}

// crowd is agents on streams, all of which can be ended and opened again.
type crowd struct {
	m        *measurement
	watchers []*watcher
	stop     func() error
}

// open has every watcher connect anew, and returns when each has been told that it is up to date.
func (c *crowd) open(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var running, begun sync.WaitGroup
	failed := make(chan error, len(c.watchers))
	for _, w := range c.watchers {
		conn, err := c.m.dial(w.config)
		if err != nil {
			cancel()
			return err
		}
		w.conn = conn
		begun.Add(1)
		running.Go(func() {
			defer conn.Close()
			once := sync.OnceFunc(begun.Done)
			defer once()
			if err := w.watch(ctx, once); ctx.Err() == nil {
				failed <- err
			}
		})
	}
	begun.Wait()
	c.stop = func() error {
		cancel()
		running.Wait()
		select {
		case err := <-failed:
			return err
		default:
			return nil
		}
	}
	return nil
}

// streams measures the issuer under agents that are told of changes: while there are none, by the change, and when they all
// come back.
func (m *measurement) streams(ctx context.Context) error {
	if m.kind.spire {
		return nil // it has nothing of the kind
	}
	c := &crowd{m: m}
	if err := c.join(ctx); err != nil {
		return err
	}
	if err := c.open(ctx); err != nil {
		return err
	}
	err := c.measure(ctx)
	return errors.Join(err, c.stop())
}

func (c *crowd) join(ctx context.Context) error {
	bundle, err := c.m.bundle(ctx)
	if err != nil {
		return err
	}
	for range c.m.set.agents {
		req, err := newRequest()
		if err != nil {
			return err
		}
		token, err := c.m.token(ctx)
		if err != nil {
			return err
		}
		svid, err := c.m.join(ctx, bundle, token, req)
		if err != nil {
			return err
		}
		c.watchers = append(c.watchers, &watcher{
			agent:  &agent{id: &types.SPIFFEID{TrustDomain: trustDomain, Path: svid.ID.Path()}},
			config: tlsconfig.MTLSClientConfig(svid, bundle, c.m.issuerOnly()), told: make(chan string, 16),
		})
	}
	return nil
}

func (c *crowd) measure(ctx context.Context) error {
	m, n := c.m, len(c.watchers)
	if err := pause(ctx, settle); err != nil {
		return err
	}
	if err := m.memory(fmt.Sprintf("%d agents on streams", n)); err != nil {
		return err
	}
	if err := m.watch(ctx, fmt.Sprintf("%d agents on streams, %d entries", n, m.set.entries)); err != nil {
		return err
	}
	if err := c.changes(ctx); err != nil {
		return err
	}
	// As after a network that was away.
	used, _, err := m.spend(func() error {
		if err := c.stop(); err != nil {
			return err
		}
		return c.open(ctx)
	})
	if err != nil {
		return err
	}
	m.add(secWork, "an agent that comes back to its stream", "us CPU", each(used, n))
	resets := 0
	for _, w := range c.watchers {
		resets += w.resets
	}
	if resets != n {
		return fmt.Errorf("%d agents were told everything %d times", n, resets)
	}
	return nil
}

// changes measures how long it takes, and what, until an agent holds an entry that is created.
func (c *crowd) changes(ctx context.Context) error {
	client := entryv1.NewEntryClient(c.m.server.admin)
	took := make([]time.Duration, 0, changesTold)
	used, _, err := c.m.spend(func() error {
		for i := range changesTold {
			w := c.watchers[i%len(c.watchers)]
			e := entry(i)
			e.ParentId = w.id
			begin := time.Now()
			resp, err := client.BatchCreateEntry(ctx, &entryv1.BatchCreateEntryRequest{Entries: []*types.Entry{e}})
			if err != nil {
				return err
			}
			select {
			case id := <-w.told:
				if made := resp.GetResults()[0].GetEntry().GetId(); id != made {
					return fmt.Errorf("told of entry %q, not %q", id, made)
				}
			case <-time.After(10 * time.Second):
				return errors.New("a change was not told within 10 s")
			case <-ctx.Done():
				return ctx.Err()
			}
			took = append(took, time.Since(begin))
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.Sort(took)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	c.m.add(secWork, "an entry, created and told of", "us CPU", each(used, changesTold))
	c.m.add(secWork, "until its agent holds it, p50", "ms", ms(took[len(took)/2]))
	c.m.add(secWork, "until its agent holds it, p99", "ms", ms(took[len(took)*99/100]))
	return nil
}
