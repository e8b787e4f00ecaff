package upstream_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/changesv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/nodeagent/internal/spiretest"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
)

// What an issuer may say that is mad does no harm, and is polled around.
func TestNonsenseOnTheStream(t *testing.T) {
	good := func(s *spiretest.Server, id string) *types.Entry { return entry(s, "tok", id).Proto() }
	foreign := func(s *spiretest.Server, id string) *types.Entry {
		p := good(s, id)
		p.SpiffeId.TrustDomain = "evil.org"
		return p
	}
	s := spiretest.New(t, "example.org")
	script := func(_ *changesv1.WatchRequest, stream spiretest.WatchStream) error {
		for _, resp := range []*changesv1.WatchResponse{
			{Reset_: true, Entries: []*types.Entry{good(s, "a"), foreign(s, "b"), {Id: "c"}, {}}, Complete: true, Resume: make([]byte, 1000)},
			{Entries: []*types.Entry{foreign(s, "a"), good(s, "d")}, RemovedEntryIds: []string{"", "never"}, RemovedBundles: []string{"example.org", "?"}, Complete: true},
			{Bundles: []*types.Bundle{{TrustDomain: "example.org"}, {TrustDomain: "\xff"}}, Complete: true},
		} {
			if err := stream.Send(resp); err != nil {
				return err
			}
		}
		<-stream.Context().Done()
		return nil
	}
	s.Set(func(sw *spiretest.Switches) { sw.Script = script })
	a := pushed(t, s)
	a.await("what is good of it", has("a"))
	a.await("what became of that", has("d"))
	last := a.synced()
	if last.Bundle == nil || !last.Bundle.Equal(s.CA.Bundle()) {
		t.Errorf("bundle %v", last.Bundle)
	}
}

// A change without end is given up, in time and in bytes, and polled around.
func TestChangesWithoutEnd(t *testing.T) {
	for name, bound := range map[string]func(*upstream.Client){
		"time": func(c *upstream.Client) {
			c.Hurry(300*time.Millisecond, time.Hour)
			c.Bound(100*time.Millisecond, 1<<30)
		},
		"bytes": func(c *upstream.Client) { c.Bound(time.Hour, 10_000) },
	} {
		t.Run(name, func(t *testing.T) {
			s := spiretest.New(t, "example.org")
			s.Put(entry(s, "tok", "polled"))
			s.Set(func(sw *spiretest.Switches) {
				sw.Script = func(_ *changesv1.WatchRequest, stream spiretest.WatchStream) error {
					if err := stream.Send(&changesv1.WatchResponse{Reset_: true, Complete: true}); err != nil {
						return err
					}
					for stream.Send(&changesv1.WatchResponse{Entries: []*types.Entry{entry(s, "tok", "pushed").Proto()}}) == nil {
						select {
						case <-stream.Context().Done():
						case <-time.After(time.Millisecond):
						}
					}
					return nil
				}
			})
			a := startWith(t, config(s, t.TempDir(), s.Token("tok", time.Hour)), bound)
			a.await("a poll", func(u upstream.Update) bool {
				if has("pushed")(u) {
					t.Error("half a change was handed on")
				}
				return has("polled")(u)
			})
		})
	}
}

func TestPollsWhereTheStreamIsBroken(t *testing.T) {
	s := spiretest.New(t, "example.org")
	s.Put(entry(s, "tok", "a"))
	for name, err := range map[string]error{
		"it fails":            status.Error(codes.Internal, "broken"),
		"it is not permitted": status.Error(codes.PermissionDenied, "not by the policy"),
	} {
		s.Set(func(sw *spiretest.Switches) {
			sw.Script = func(*changesv1.WatchRequest, spiretest.WatchStream) error { return err }
		})
		a := start(t, config(s, t.TempDir(), s.Token(strings.ReplaceAll(name, " ", "-"), time.Hour)))
		a.synced()
		a.synced()
		a.stop()
	}
}
