package upstream_test

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/nodeagent/internal/spiretest"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream/attest"
)

// agent is a client that runs until the test's end, or stop.
type agent struct {
	*upstream.Client
	t      *testing.T
	states chan upstream.Update // all of each
	whole  int                  // updates that were; read it when the agent has stopped
	ctx    context.Context
	cancel context.CancelFunc
	ended  chan error
	err    error
	once   sync.Once

	running sync.WaitGroup
}

func config(s *spiretest.Server, dir, token string) upstream.Config {
	return upstream.Config{
		TrustDomain: s.CA.TrustDomain, DataDir: dir, ServerAddress: s.Addr,
		Attestor: attest.JoinToken{Token: attest.Token{Value: token}}, TrustBundle: s.CA.Bundle(), SyncInterval: 20 * time.Millisecond,
	}
}

// pollOnly makes s an issuer such as SPIRE's.
func pollOnly(s *spiretest.Server) { s.Set(func(sw *spiretest.Switches) { sw.NoChanges = true }) }

func start(t *testing.T, cfg upstream.Config) *agent {
	t.Helper()
	return startWith(t, cfg, func(*upstream.Client) {})
}

func startWith(t *testing.T, cfg upstream.Config, change func(*upstream.Client)) *agent {
	t.Helper()
	client, err := upstream.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	change(client)
	ctx, cancel := context.WithCancel(t.Context())
	a := &agent{Client: client, t: t, states: make(chan upstream.Update), ctx: ctx, cancel: cancel, ended: make(chan error, 1)}
	a.running.Go(func() {
		defer cancel()
		a.ended <- client.Run(ctx)
	})
	a.running.Go(func() {
		held := make(map[string]registration.Entry)
		client.Watch(ctx, func(u upstream.Update) {
			if u.Whole {
				a.whole++
			}
			select {
			case a.states <- hold(held, u):
			case <-ctx.Done():
			}
		})
	})
	t.Cleanup(func() { cancel(); a.running.Wait() })
	return a
}

// hold applies an update to what is held, and returns all of that.
func hold(held map[string]registration.Entry, u upstream.Update) upstream.Update {
	if u.Whole {
		clear(held)
	}
	for _, id := range u.Removed {
		delete(held, id)
	}
	for _, e := range u.Entries {
		held[e.ID] = e
	}
	all := u
	all.Entries = slices.SortedFunc(maps.Values(held), func(a, b registration.Entry) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// end returns what Run returned.
func (a *agent) end() error {
	a.once.Do(func() { a.err = <-a.ended })
	return a.err
}

func (a *agent) stop() {
	a.cancel()
	a.end()
}

// await returns the first state that cond is true of.
func (a *agent) await(what string, cond func(upstream.Update) bool) upstream.Update {
	a.t.Helper()
	timeout := time.NewTimer(time.Minute)
	defer timeout.Stop()
	for {
		select {
		case state := <-a.states:
			if cond(state) {
				return state
			}
		case err := <-a.ended:
			a.t.Fatalf("ended: %v", err)
		case <-timeout.C:
			a.t.Fatalf("waited a minute for: %s", what)
		}
	}
}

func logTo(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

func (a *agent) synced() upstream.Update {
	a.t.Helper()
	return a.await("a sync", func(upstream.Update) bool { return true })
}

func entry(s *spiretest.Server, token, id string) registration.Entry {
	return registration.Entry{
		ID: id, SPIFFEID: spiffeid.RequireFromPath(s.CA.TrustDomain, "/"+id), ParentID: s.AgentID(token),
		Selectors: []registration.Selector{{Type: "unix", Value: "uid:1"}},
	}
}

func entryIDs(state upstream.Update) []string {
	ids := []string{}
	for _, e := range state.Entries {
		ids = append(ids, e.ID)
	}
	return ids
}

// drain lets the agent go on syncing without anyone looking.
func (a *agent) drain() {
	a.running.Go(func() {
		for {
			select {
			case <-a.states:
			case <-a.ctx.Done():
				return
			}
		}
	})
}
