package serverapi

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/changesv1"
	"github.com/lanyard-mtls/lanyard/issuer/registry"
)

const (
	// maxBeat is how long a stream may be silent; it says something after two
	// thirds of that, or a little later.
	maxBeat = 30 * time.Second
	// minGap is how soon after one change the next is told. The first comes at
	// once; a registrar that makes a thousand entries a second for all agents must
	// not cost a thousand responses a second each.
	minGap = 25 * time.Millisecond
	// maxWatches is how many streams one agent may have. It needs one, and another
	// while it goes over to it.
	maxWatches = 4
	// maxRecall is how long a resumption waits, after a start, for the history that
	// it may need.
	maxRecall = 2 * time.Second
)

// ChangesService is lanyard.changes.v1.Changes. A stream holds neither entries
// nor a queue: it is woken, asks the registry what differs from what it has told,
// and tells that. What changes while it is sending is part of the next.
type ChangesService struct {
	changesv1.UnsafeChangesServer
	deps  Deps
	guard *guard
	pace  pace

	stopping chan struct{}
	stop     func() // ends the streams, with Unavailable

	mu   sync.Mutex
	open map[spiffeid.ID]int // streams, by agent
}

// pace says when a stream does what nobody asks for.
type pace struct {
	beat time.Duration // at most, between responses
	gap  time.Duration // at least, between changes
	// A stream ends before gRPC cuts its connection, which gets old at age, give or
	// take a tenth, and is cut after another grace. The client has been told to
	// make a new one by then.
	age, grace time.Duration
}

// NewChangesService returns the service.
func NewChangesService(d Deps) *ChangesService {
	d.setDefaults()
	return newChangesService(newGuard(d))
}

func newChangesService(g *guard) *ChangesService {
	s := &ChangesService{
		deps: g.deps, guard: g, pace: pace{maxBeat, minGap, maxConnectionAge, maxConnectionGrace},
		stopping: make(chan struct{}), open: make(map[spiffeid.ID]int),
	}
	s.stop = sync.OnceFunc(func() { close(s.stopping) })
	return s
}

// Watch tells the calling agent what it may know, and each change of that.
func (s *ChangesService) Watch(req *changesv1.WatchRequest, stream grpc.ServerStreamingServer[changesv1.WatchResponse]) error {
	ctx := stream.Context()
	caller := CallerFrom(ctx)
	if caller.ID.IsZero() {
		return statusError(codes.Internal, "caller ID missing from request context", nil)
	}
	leave, err := s.admit(ctx, caller.ID)
	if err != nil {
		return err
	}
	defer leave()
	from := s.resume(ctx, caller.ID, req)
	follower := s.deps.Registry.Follow(caller.ID, req.GetIdTemplates(), from)
	defer follower.Close()
	w := &watch{s: s, ctx: ctx, stream: stream, caller: caller, templates: req.GetIdTemplates(), follower: follower}
	if p, ok := peer.FromContext(ctx); ok {
		w.conn, _ = p.AuthInfo.(*connInfo)
	}
	defer func() {
		annotate(ctx, slog.Bool("resumed", w.resumed), slog.Int("changes", w.changes), slog.Int("responses", w.responses))
	}()
	return w.run()
}

// admit counts a stream of the agent, and leave counts it out.
func (s *ChangesService) admit(ctx context.Context, agent spiffeid.ID) (leave func(), _ error) {
	if l := limitsOf(ctx); l != nil {
		if err := l.watch.wait(ctx, agent, 1); err != nil {
			return nil, errLimited("rejecting request due to watch rate limiting", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[agent] >= maxWatches {
		return nil, statusError(codes.ResourceExhausted, "the agent has too many streams of changes open: two processes may be using its identity", nil)
	}
	s.open[agent]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.open[agent]--; s.open[agent] == 0 {
			delete(s.open, agent)
		}
	}, nil
}

// resume returns the position that the agent's token stands for; zero if it has
// none that is good here.
func (s *ChangesService) resume(ctx context.Context, agent spiffeid.ID, req *changesv1.WatchRequest) registry.Position {
	token, ok := parseResumeToken(req.GetResume())
	if !ok || token.holder != holderOf(agent, req.GetIdTemplates()) || !s.deps.Store.Had(token.run, token.at.Revision) {
		return registry.Position{}
	}
	patience := time.NewTimer(maxRecall)
	defer patience.Stop()
	select {
	case <-s.deps.Registry.Recalled():
	case <-patience.C:
	case <-s.stopping:
	case <-ctx.Done():
	}
	return token.at
}

// nextBeat is when a stream that has nothing to tell says so.
func (p pace) nextBeat() time.Duration { return p.beat*2/3 + rand.N(p.beat/6) }

// ends is how long a stream may last over a connection of that age.
func (p pace) ends(connection time.Duration) time.Duration {
	told := p.age * 11 / 10            // by then the client knows
	cut := p.age*9/10 + p.grace - told // how much later it may be cut
	left := told + rand.N(cut*9/10) - connection
	return max(left, cut/10)
}
