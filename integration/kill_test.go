package integration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// kills is how often a program is killed; three tests make it twenty together.
func kills() int {
	if soak() {
		return 67
	}
	return 7
}

// clean fails the test if a request of the load did.
func clean(t *testing.T, load *harness.Load) {
	t.Helper()
	if count := load.Stop(); count.Failed > 0 || count.Requests == 0 {
		t.Errorf("%d of %d requests failed, first %q", count.Failed, count.Requests, count.Failures)
	}
}

// writer creates entries until told to stop, and keeps the IDs of those the issuer confirmed.
type writer struct {
	stop context.CancelFunc
	wait sync.WaitGroup
	ids  []string
}

func newWriter(d *harness.Domain) *writer {
	ctx, stop := context.WithCancel(d.Context())
	w := &writer{stop: stop}
	w.wait.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			id := "written-" + strconv.Itoa(n)
			_, err := d.TryAdmin(ctx, "entry", "create", "-entryID", id, "-parentID", d.NodeID,
				"-spiffeID", d.ID("/"+id), "-selector", "unix:uid:"+strconv.Itoa(100000+n))
			if err == nil {
				w.ids = append(w.ids, id)
			}
		}
	})
	return w
}

// confirmed ends the writer and returns what it wrote.
func (w *writer) confirmed() []string {
	w.stop()
	w.wait.Wait()
	return w.ids
}

func TestKillIssuerLosesNoEntry(t *testing.T) {
	c := newChain(t, harness.Options{})
	load := harness.StartLoad(t.Context(), c.client(c.userID).Listen, 50)
	before := c.EntryIDs()
	for range kills() {
		w := newWriter(c.Domain)
		served := load.Count().Requests
		c.Until(10*time.Second, "25 requests under writes", func(context.Context) error {
			return atLeast(load.Count().Requests, served+25)
		})
		c.Issuer.Kill()
		before = append(before, w.confirmed()...)
		if !c.Agent.Running() {
			t.Fatal("the agent ended with the issuer")
		}
		c.StartIssuer()
		after := c.EntryIDs()
		for _, id := range before {
			if !slices.Contains(after, id) {
				t.Fatalf("the issuer had confirmed entry %s; it is lost", id)
			}
		}
		before = after
	}
	// The agent is there for new workloads again.
	c.Entry(c.ID("/gopher"), selfPath(t), 0)
	fetchGo(t, c.Domain, c.ID("/gopher"))
	clean(t, load)
}

func TestKillAgentComesBackWithoutAToken(t *testing.T) {
	c := newChain(t, harness.Options{})
	binary := c.Copy(c.SidecarBinary(), "user")
	c.Entry(c.userID, binary, 10*time.Second) // the load outlives what the sidecar holds at first
	client := c.Sidecar(harness.SidecarSpec{
		Name: "user sidecar", Binary: binary, Mode: "client", Target: c.server.Listen, WorkloadAPI: c.WorkloadAPI(),
	})
	c.Entry(c.ID("/gopher"), selfPath(t), 0)
	begun := time.Now()
	load := harness.StartLoad(t.Context(), client.Listen, 50)
	for range kills() {
		c.Agent.Kill()
		served := load.Count().Requests
		c.Until(10*time.Second, "25 requests without an agent", func(context.Context) error {
			return atLeast(load.Count().Requests, served+25)
		})
		c.StartAgent("")
		fetchGo(t, c.Domain, c.ID("/gopher"))
	}
	c.Until(30*time.Second, "the first SVID to be long expired", func(context.Context) error {
		return atLeast(int(time.Since(begun).Seconds()), 15)
	})
	clean(t, load)
}

func TestKillSidecarServesAgainAtOnce(t *testing.T) {
	c := newChain(t, harness.Options{})
	binary := c.Copy(c.SidecarBinary(), "user")
	c.Entry(c.userID, binary, 0)
	spec := harness.SidecarSpec{
		Name: "user sidecar", Binary: binary, Mode: "client", Target: c.server.Listen, WorkloadAPI: c.WorkloadAPI(),
	}
	client := c.Sidecar(spec)
	spec.Listen = client.Listen
	for range kills() - 1 {
		load := harness.StartLoad(t.Context(), client.Listen, 50)
		c.Until(10*time.Second, "10 requests", func(context.Context) error { return atLeast(load.Count().Requests, 10) })
		client.Kill()
		load.Stop() // what was under way is lost with the sidecar
		client = c.Sidecar(spec)
		again := harness.StartLoad(t.Context(), client.Listen, 50)
		c.Until(10*time.Second, "10 requests", func(context.Context) error { return atLeast(again.Count().Requests, 10) })
		clean(t, again)
	}
}

var errLess = errors.New("not yet")

func atLeast(got, want int) error {
	if got < want {
		return fmt.Errorf("%w: %d of %d", errLess, got, want)
	}
	return nil
}
