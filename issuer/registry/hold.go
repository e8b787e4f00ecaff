package registry

import (
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/issuer/store"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// AckBundle notes that the agent holds the trust domain's bundle of that
// sequence number, or a later one; of two calls the higher number counts. It is
// kept in memory only: after a restart every agent has to tell again.
func (r *Registry) AckBundle(agent spiffeid.ID, sequence uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.idx.agents[agent]; !known || r.acks[agent] >= sequence {
		return
	}
	r.acks[agent] = sequence
	r.stirAcks()
}

// forgetAck forgets what an agent that is gone acknowledged. The caller holds mu.
func (r *Registry) forgetAck(e store.Event) {
	if !e.Deleted {
		return
	}
	if id, err := spiffeid.FromString(e.ID); err == nil {
		delete(r.acks, id)
	}
}

// stirAcks wakes who waits for acknowledgements. The caller holds mu.
func (r *Registry) stirAcks() {
	close(r.acked)
	r.acked = make(chan struct{})
}

// Hold returns the live agents (not banned, SVID not expired) that have not
// acknowledged the bundle of that sequence number, by SPIFFE ID; and a channel
// that is closed when that may have changed. Agents that never acknowledge,
// such as SPIRE's own, count as missing. With the passage of time alone, as an
// SVID expires, nothing is closed.
func (r *Registry) Hold(sequence uint64) (missing []spiffeid.ID, changed <-chan struct{}) {
	now := r.store.Now()
	r.mu.RLock()
	for id, a := range r.idx.agents {
		if live(a.record, now) && r.acks[id] < sequence {
			missing = append(missing, id)
		}
	}
	changed = r.acked
	r.mu.RUnlock()
	slices.SortFunc(missing, func(a, b spiffeid.ID) int { return strings.Compare(a.String(), b.String()) })
	return missing, changed
}

// live reports whether an agent can hold anything: the last SVID that it has
// been given, used or not, has not expired.
func live(a *storepb.Agent, now time.Time) bool {
	return !a.Banned && max(a.NotAfter, a.NewNotAfter) > now.Unix()
}

// EntryCount returns the number of entries, expired ones included.
func (r *Registry) EntryCount() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.idx.entries)
}

// AgentCount returns the number of agents, banned and expired ones included.
func (r *Registry) AgentCount() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.idx.agents)
}
