package registry_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

func TestHoldWaitsForLiveAgents(t *testing.T) {
	r := newRig(t)
	r.start()
	ctx := t.Context()
	now := r.store.Now().Unix()
	name := func(n string) string { return "spiffe://lanyard.test/spire/agent/x/" + n }
	results, rev, err := r.store.ImportAgents(ctx, []*storepb.Agent{
		{SpiffeId: name("a"), NotAfter: now + 1000}, {SpiffeId: name("b"), NotAfter: now + 1000},
		{SpiffeId: name("renewed"), NotAfter: now - 1, NewNotAfter: now + 1000},
		{SpiffeId: name("expired"), NotAfter: now - 1}, {SpiffeId: name("banned"), NotAfter: now + 1000, Banned: true},
	})
	for _, err := range append(results, err, r.Wait(ctx, rev)) {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := func(sequence uint64, missing string) <-chan struct{} {
		t.Helper()
		got, changed := r.Hold(sequence)
		if fmt.Sprint(got) != missing {
			t.Errorf("missing for %d: %v, want %s", sequence, got, missing)
		}
		return changed
	}
	all := fmt.Sprintf("[%s %s %s]", name("a"), name("b"), name("renewed"))
	changed := want(2, all)
	r.AckBundle(id("/spire/agent/x/unknown"), 9)
	r.AckBundle(id("/spire/agent/x/a"), 1)
	want(2, all)
	<-changed
	r.AckBundle(id("/spire/agent/x/a"), 3)
	r.AckBundle(id("/spire/agent/x/a"), 2) // arrives late
	r.AckBundle(id("/spire/agent/x/renewed"), 2)
	want(3, fmt.Sprintf("[%s %s]", name("b"), name("renewed")))
	changed = want(2, fmt.Sprintf("[%s]", name("b")))

	// One that goes is not waited for, and one that comes again starts anew.
	rev, err = r.store.DeleteAgent(ctx, id("/spire/agent/x/b"))
	if err != nil || r.Wait(ctx, rev) != nil {
		t.Fatal(err)
	}
	<-changed
	want(2, "[]")
	if _, err = r.store.DeleteAgent(ctx, id("/spire/agent/x/a")); err != nil {
		t.Fatal(err)
	}
	_, rev, err = r.store.ImportAgents(ctx, []*storepb.Agent{{SpiffeId: name("a"), NotAfter: now + 1000}})
	if err != nil || r.Wait(ctx, rev) != nil {
		t.Fatal(err)
	}
	want(2, fmt.Sprintf("[%s]", name("a")))
	if r.AgentCount() != 4 || r.EntryCount() != 0 {
		t.Errorf("%d agents, %d entries", r.AgentCount(), r.EntryCount())
	}
}

func TestPruneAgents(t *testing.T) {
	r := newRig(t)
	r.start()
	ctx := t.Context()
	now := r.store.Now().Unix()
	name := func(n string) string { return "spiffe://lanyard.test/spire/agent/x/" + n }
	_, rev, err := r.store.ImportAgents(ctx, []*storepb.Agent{
		{SpiffeId: name("old1"), NotAfter: now - 7200, CanReattest: true}, {SpiffeId: name("old2"), NotAfter: now - 7200, CanReattest: true},
		{SpiffeId: name("tofu"), NotAfter: now - 7200}, {SpiffeId: name("late"), NotAfter: now - 1800, CanReattest: true},
		{SpiffeId: name("renewed"), NotAfter: now - 7200, NewNotAfter: now, CanReattest: true},
		{SpiffeId: name("banned"), NotAfter: now - 7200, CanReattest: true, Banned: true},
	})
	if err != nil || r.Wait(ctx, rev) != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		batch int
		tofu  bool
		want  int
	}{{1, false, 1}, {0, false, 1}, {0, false, 0}, {0, true, 1}, {0, true, 0}} {
		n, err := r.PruneAgents(ctx, time.Hour, step.batch, step.tofu)
		if err != nil || n != step.want {
			t.Errorf("%+v: pruned %d, %v", step, n, err)
		}
		snap, err := r.store.Snapshot(ctx)
		if err != nil || r.Wait(ctx, snap.Revision) != nil {
			t.Fatal(err)
		}
	}
	if n := r.AgentCount(); n != 3 {
		t.Errorf("%d agents are left, want 3", n)
	}
}
