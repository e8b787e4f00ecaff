package spiretest

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/changesv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// Pushing are the switches of lanyard.changes.v1.Changes.
type Pushing struct {
	// NoChanges answers as an issuer without the service, such as SPIRE's.
	NoChanges bool
	// ChangeSize is how many entries a response has at most; 0: any number.
	ChangeSize int
	// Heartbeat is the time from one sign of life to the next; 0: 30 s.
	Heartbeat time.Duration
	// Mute says nothing on streams that are open.
	Mute bool
	// CutAfter ends streams with Unavailable once so many responses were sent, on
	// all of them together, and counts down; 0: never.
	CutAfter int
	// Forget takes no resume token for known.
	Forget bool
	// Script, if set, answers instead.
	Script func(*changesv1.WatchRequest, WatchStream) error
}

// WatchStream is the issuer's end of a stream of changes.
type WatchStream = grpc.ServerStreamingServer[changesv1.WatchResponse]

// resumed returns the revision that a token stands for; s.mu is held.
func (s *Server) resumed(token []byte) (uint64, bool) {
	var domain string
	var rev uint64
	_, err := fmt.Sscanf(string(token), "%s %d", &domain, &rev)
	return rev, err == nil && domain == s.token() && rev <= s.revision && !s.Forget
}

// token names this world: a revision of another's says nothing.
func (w *world) token() string { return fmt.Sprintf("%p", w) }

type changesService struct {
	changesv1.UnimplementedChangesServer
	s *Server
}

func (c changesService) Watch(req *changesv1.WatchRequest, stream WatchStream) error {
	s := c.s
	s.mu.Lock()
	from, known := s.resumed(req.Resume)
	script, beat, none := s.Script, cmp.Or(s.Heartbeat, 30*time.Second), s.NoChanges
	s.mu.Unlock()
	if none {
		return status.Error(codes.Unimplemented, "unknown service lanyard.changes.v1.Changes")
	}
	if script != nil {
		return script(req, stream)
	}
	heartbeat := time.NewTicker(beat)
	defer heartbeat.Stop()
	due := true
	for {
		s.mu.Lock()
		changed, mute := s.changed, s.Mute
		if err := s.allow(stream.Context(), changesv1.Changes_Watch_FullMethodName); err != nil {
			s.mu.Unlock()
			return err
		}
		var out []*changesv1.WatchResponse
		if !mute && (due || from < s.revision) {
			out, from = s.responses(stream, req, from, !known), s.revision
			known, due = true, false
		}
		s.mu.Unlock()
		for _, resp := range out {
			if err := c.send(stream, resp); err != nil {
				return err
			}
		}
		select {
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		case <-changed:
		case <-heartbeat.C:
			due = true
		}
	}
}

func (c changesService) send(stream WatchStream, resp *changesv1.WatchResponse) error {
	c.s.mu.Lock()
	cut := c.s.CutAfter == 1
	c.s.CutAfter = max(0, c.s.CutAfter-1)
	c.s.mu.Unlock()
	if err := stream.Send(resp); err != nil || !cut {
		return err
	}
	return status.Error(codes.Unavailable, "the stream was cut")
}

// responses are what the caller is told of the changes after a revision, or all
// there is; s.mu is held.
func (s *Server) responses(stream WatchStream, req *changesv1.WatchRequest, from uint64, all bool) []*changesv1.WatchResponse {
	last := &changesv1.WatchResponse{Complete: true, Resume: fmt.Appendf(nil, "%s %d", s.token(), s.revision)}
	var out []*changesv1.WatchResponse
	mine, federates, anew := make(map[string]bool), make(map[spiffeid.TrustDomain]bool), make(map[spiffeid.TrustDomain]bool)
	var changed []*types.Entry
	caller := certID(clientCert(stream.Context()))
	for id, e := range s.entries {
		if e.ParentID != caller || !e.Template.IsZero() && !req.IdTemplates {
			continue
		}
		mine[id] = true
		news := all || s.touchedEntries[id] > from
		if news {
			changed = append(changed, e.Proto())
		}
		for _, td := range e.FederatesWith {
			federates[td] = true
			anew[td] = anew[td] || news
		}
	}
	slices.SortFunc(changed, func(a, b *types.Entry) int { return cmp.Compare(a.Id, b.Id) })
	for id, rev := range s.touchedEntries {
		if !all && rev > from && !mine[id] {
			last.RemovedEntryIds = append(last.RemovedEntryIds, id)
		}
	}
	if all || s.touchedBundles[s.CA.TrustDomain] > from {
		last.Bundles = append(last.Bundles, s.ownBundle())
	}
	for td, b := range s.federated {
		if federates[td] && (anew[td] || s.touchedBundles[td] > from) {
			last.Bundles = append(last.Bundles, s.bundleProto(b))
		}
	}
	for td, rev := range s.touchedBundles {
		if _, there := s.federated[td]; !all && (rev > from && !there || !federates[td]) && td != s.CA.TrustDomain {
			last.RemovedBundles = append(last.RemovedBundles, td.Name())
		}
	}
	size := cmp.Or(s.ChangeSize, max(1, len(changed)))
	for page := range slices.Chunk(changed, size) {
		out = append(out, &changesv1.WatchResponse{Entries: page})
	}
	out = append(out, last)
	out[0].Reset_ = all
	return out
}
