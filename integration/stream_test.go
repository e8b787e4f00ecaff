package integration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// stream is a workload, this process, that waits on its agent's stream, and holds everything it is given against what the
// issuer was told. Its client begins again when the stream ends.
type stream struct {
	t     *testing.T
	agent *harness.Agent

	mu      sync.Mutex
	allowed map[string]bool // every ID that this process is entitled to, or was until it is told
	last    *workloadapi.X509Context
	err     error // since last; nil while there is a stream
	changed chan struct{}
}

func newStream(t *testing.T, agent *harness.Agent) *stream {
	t.Helper()
	s := &stream{t: t, agent: agent, allowed: map[string]bool{}, changed: make(chan struct{})}
	client, err := workloadapi.New(t.Context(), workloadapi.WithAddr(agent.WorkloadAPI()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() { _ = client.WatchX509Context(ctx, s) })
	t.Cleanup(func() {
		cancel()
		watching.Wait()
		client.Close()
	})
	return s
}

// allow says that this process is entitled to an ID from now on.
func (s *stream) allow(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.allowed[id] = true
}

// forbid says that it is not any more, and has been told so.
func (s *stream) forbid(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.allowed, id)
}

// OnX509ContextUpdate implements the watcher of go-spiffe.
func (s *stream) OnX509ContextUpdate(got *workloadapi.X509Context) {
	s.check(got)
	s.tell(got, nil)
}

// OnX509ContextWatchError implements it too.
func (s *stream) OnX509ContextWatchError(err error) { s.tell(nil, err) }

func (s *stream) tell(got *workloadapi.X509Context, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err = err; got != nil {
		s.last = got
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// check fails the test if an SVID is none of this process's, has expired, or does not hang from the bundle beside it.
func (s *stream) check(got *workloadapi.X509Context) {
	for _, svid := range got.SVIDs {
		s.mu.Lock()
		allowed := s.allowed[svid.ID.String()]
		s.mu.Unlock()
		if !allowed {
			s.t.Errorf("was given the SVID of %s", svid.ID)
		}
		if _, _, err := x509svid.Verify(svid.Certificates, got.Bundles); err != nil {
			s.t.Errorf("was given an SVID that is worth nothing: %v", err)
		}
	}
}

// fetch gets what a new call gets, and checks it.
func (s *stream) fetch(ctx context.Context) (*workloadapi.X509Context, error) {
	got, err := workloadapi.FetchX509Context(ctx, workloadapi.WithAddr(s.agent.WorkloadAPI()))
	if err != nil {
		return nil, err
	}
	s.check(got)
	return got, nil
}

// until waits until the stream has come to what is wanted.
func (s *stream) until(what string, want func(got *workloadapi.X509Context, err error) error) {
	s.t.Helper()
	limit := time.NewTimer(watchLimit)
	defer limit.Stop()
	for {
		s.mu.Lock()
		got, ended, changed := s.last, s.err, s.changed
		s.mu.Unlock()
		err := errors.New("nothing yet")
		if got != nil || ended != nil {
			if err = want(got, ended); err == nil {
				return
			}
		}
		select {
		case <-changed:
		case <-limit.C:
			s.t.Fatalf("%s: not within %v: %v", what, watchLimit, err)
		case <-s.t.Context().Done():
			s.t.Fatalf("%s: %v", what, s.t.Context().Err())
		}
	}
}

// has waits for an open stream with exactly these IDs.
func (s *stream) has(ids ...string) *workloadapi.X509Context {
	s.t.Helper()
	slices.Sort(ids)
	var found *workloadapi.X509Context
	s.until(fmt.Sprint("SVIDs of ", ids), func(got *workloadapi.X509Context, err error) error {
		if err != nil {
			return err
		}
		var have []string
		for _, svid := range got.SVIDs {
			have = append(have, svid.ID.String())
		}
		slices.Sort(have)
		if !slices.Equal(have, ids) {
			return fmt.Errorf("has %v", have)
		}
		found = got
		return nil
	})
	return found
}

// denied waits until the stream was ended for want of an identity.
func (s *stream) denied() {
	s.t.Helper()
	s.until("PermissionDenied", func(_ *workloadapi.X509Context, err error) error {
		if status.Code(err) != codes.PermissionDenied {
			return fmt.Errorf("the stream's state is %v", err)
		}
		return nil
	})
}

// renewed waits for an open stream with another SVID than one.
func (s *stream) renewed(old *x509svid.SVID) *x509svid.SVID {
	s.t.Helper()
	var found *x509svid.SVID
	s.until("another SVID than "+serial(old), func(got *workloadapi.X509Context, err error) error {
		if err != nil {
			return err
		}
		if found = got.DefaultSVID(); serial(found) == serial(old) {
			return errors.New("still that one")
		}
		return nil
	})
	return found
}

func serial(svid *x509svid.SVID) string { return svid.Certificates[0].SerialNumber.String() }

// authorities waits for an open stream with so many authorities of a trust domain.
func (s *stream) authorities(domain string, n int) {
	s.t.Helper()
	s.until(fmt.Sprintf("%d authorities of %s", n, domain), func(got *workloadapi.X509Context, err error) error {
		if err != nil {
			return err
		}
		bundle, ok := got.Bundles.Get(spiffeid.RequireTrustDomainFromString(domain))
		if !ok {
			return errors.New("no bundle of it")
		}
		if have := len(bundle.X509Authorities()); have != n {
			return fmt.Errorf("%d", have)
		}
		return nil
	})
}
