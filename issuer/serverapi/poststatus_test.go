package serverapi

import (
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/issuer/store"
)

// TestPostStatusWritesOnce: an agent posts at each start, and ours with each
// bundle; the store hears of it when something changed.
func TestPostStatusWritesOnce(t *testing.T) {
	r := newRig(t)
	svid := r.join()
	agent := agentv1.NewAgentClient(r.as(svid))
	post := func(version string) store.Revision {
		t.Helper()
		_, err := agent.PostStatus(t.Context(), &agentv1.PostStatusRequest{AgentVersion: version})
		must(t, err)
		snap, err := r.deps.Store.Snapshot(t.Context())
		must(t, err)
		return snap.Revision
	}
	first := post("1.2.3")
	if again := post("1.2.3"); again != first {
		t.Error("an unchanged version was written")
	}
	if none := post(""); none != first {
		t.Error("no version was written")
	}
	if later := post("1.2.4"); later == first {
		t.Error("another version was not written")
	}
}

// TestPostStatusAcknowledges: agents of ours say which bundle they hold.
func TestPostStatusAcknowledges(t *testing.T) {
	r := newRig(t)
	ours, spires := r.join(), r.join()
	sequence := r.deps.Registry.Bundle().GetSequenceNumber()
	post := func(conn agentv1.AgentClient, version string, serial uint64) {
		t.Helper()
		_, err := conn.PostStatus(t.Context(), &agentv1.PostStatusRequest{AgentVersion: version, CurrentBundleSerial: serial})
		must(t, err)
	}
	missing := func(sequence uint64) map[spiffeid.ID]bool {
		ids, _ := r.deps.Registry.Hold(sequence)
		set := map[spiffeid.ID]bool{}
		for _, id := range ids {
			set[id] = true
		}
		return set
	}
	post(agentv1.NewAgentClient(r.as(spires)), "1.12.0", sequence)
	post(agentv1.NewAgentClient(r.as(ours)), "lanyard 0.1.0", 1<<63) // more than there is
	if got := missing(sequence); got[ours.ID] || !got[spires.ID] {
		t.Errorf("missing = %v", got)
	}
	if got := missing(sequence + 1); !got[ours.ID] {
		t.Error("a bundle was acknowledged before it was made")
	}
}
