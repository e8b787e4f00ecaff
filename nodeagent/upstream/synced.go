package upstream

import (
	"crypto/sha256"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// synced is what one sync has found: nothing of it is known before [syncer.keep].
type synced struct {
	change
	stamps map[string]*stamp // of what is new or changed
	gone   []string
}

func (s *syncer) begin() *synced {
	s.round++
	got := &synced{change: newChange(), stamps: make(map[string]*stamp)}
	got.whole = s.known == nil
	return got
}

// keep makes what was found what is known.
func (s *syncer) keep(got *synced) {
	if s.known == nil {
		s.known = make(map[string]*stamp, len(got.stamps))
	}
	for id, st := range got.stamps {
		s.known[id] = st
	}
	for _, id := range got.gone {
		delete(s.known, id)
	}
}

// forget has the next sync begin from nothing.
func (s *syncer) forget() { s.known = nil }

// federates returns the trust domains that the entries federate with, once got is
// kept.
func (s *syncer) federates(got *synced) map[spiffeid.TrustDomain]bool {
	all := make(map[spiffeid.TrustDomain]bool)
	add := func(st *stamp) {
		for _, td := range st.federates {
			if td != s.reader.td {
				all[td] = true
			}
		}
	}
	for id, st := range s.known {
		if got.stamps[id] == nil && st.round == s.round {
			add(st)
		}
	}
	for _, st := range got.stamps {
		add(st)
	}
	return all
}

// compareAll takes a list of all entries.
func (s *syncer) compareAll(got *synced, ps []*types.Entry) error {
	for _, p := range ps {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(p)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(b)
		if known := s.known[p.GetId()]; known != nil && known.sum == sum {
			known.round = s.round
			continue
		}
		s.take(got, p, sum)
	}
	return nil
}

// take takes an entry that is new or changed. What cannot be read is remembered as
// such, and not told of each time; what was held of it before is outdated.
func (s *syncer) take(got *synced, p *types.Entry, sum [sha256.Size]byte) {
	st := &stamp{revision: p.GetRevisionNumber(), created: p.GetCreatedAt(), sum: sum, round: s.round}
	got.stamps[p.GetId()] = st
	e, ok := s.reader.read(p)
	if !ok {
		st.left = true
		if p.GetId() != "" {
			got.remove(p.GetId())
		}
		return
	}
	st.federates = e.FederatesWith
	got.put(e)
}

// finish finds what is not there any more.
func (s *syncer) finish(got *synced) *synced {
	for id, st := range s.known {
		if _, anew := got.stamps[id]; !anew && st.round != s.round {
			got.gone = append(got.gone, id)
			if !st.left {
				got.remove(id)
			}
		}
	}
	return got
}
