// Package follow owns the course of a stream about one process: it is attested,
// sent what there is for it, attested anew before each further message, and kept
// while an attestor is away. It does not know what is sent nor who may ask, and
// leaves it to its callers to word errors.
package follow

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/nodeagent/svidcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

// Feed says what a stream is sent. All but Without and Again must be set.
type Feed[T any] struct {
	// Attest attests the process again; its error ends the stream.
	Attest func(context.Context) (workloadattest.Result, error)
	// Again, if not nil, is called before each message but the first; its error
	// ends the stream.
	Again     func(context.Context) error
	Subscribe func(svidcache.Caller) *svidcache.Subscription
	// Identities is the cache's.
	Identities func(svidcache.Caller) ([]registration.Entry, error)
	// Next is one of the methods of a subscription.
	Next func(*svidcache.Subscription, context.Context) (*T, error)
	// Without returns what is sent while there is no identity, for the reason that
	// the cache gives, and what is closed when that changes, nil if it never does.
	// incomplete is the standing's. nil: the stream ends with the reason.
	Without func(reason error, incomplete bool) (*T, <-chan struct{}, error)
	Send    func(*T) error
}

const (
	// While an attestor fails the process of an open stream is attested again,
	// first after firstRetry.
	firstRetry   = time.Second
	longestRetry = 30 * time.Second
	// lookAgain is how often a stream that goes on without identity looks whether
	// there is one.
	lookAgain = 250 * time.Millisecond
)

// Run sends until ctx ends or something fails, and returns that error as it is,
// with what the process was found to be last. who is its standing by now.
func Run[T any](ctx context.Context, who Standing, f Feed[T]) (Standing, error) {
	s := stream[T]{feed: f, who: who, sub: f.Subscribe(who.Caller())}
	defer func() { s.sub.Close() }()
	for {
		v, err := s.next(ctx)
		if err == nil && s.last != nil && f.Again != nil {
			err = f.Again(ctx)
		}
		if err == nil {
			err = f.Send(v)
		}
		if err != nil {
			return s.who, err
		}
		s.last = v
	}
}

type stream[T any] struct {
	feed  Feed[T]
	who   Standing
	sub   *svidcache.Subscription
	last  *T // sent last; nil: nothing yet
	tries int
	// changed is of what was sent last by Without; nil: by the subscription.
	changed <-chan struct{}
	// without: what was sent last is Without's.
	without bool
}

// next returns what is to be sent next. The process is attested anew before each
// message but the first: it may have executed another program by then.
func (s *stream[T]) next(ctx context.Context) (*T, error) {
	for {
		v, retry, err := s.wait(ctx)
		if err != nil {
			return nil, err
		}
		if retry || s.last != nil && v != s.last {
			other, err := s.attest(ctx)
			if err != nil {
				return nil, err
			}
			if other || retry {
				continue // to what there is for what it is now
			}
		}
		if v != s.last {
			return v, nil
		}
	}
}

// attest attests the process again, and reports whether what the subscription
// returned last no longer counts. It goes on until the process is known well
// enough: an attestor that fails neither takes identities away, nor leaves them to
// a process that may be another program by now. Meanwhile nothing is sent.
func (s *stream[T]) attest(ctx context.Context) (other bool, _ error) {
	for held := false; ; held = true {
		result, err := s.feed.Attest(ctx)
		if err != nil {
			return false, err
		}
		if who := Found(result, s.who.only); !who.Incomplete() || s.keeps(who) {
			s.who = who
			if !who.Incomplete() {
				s.tries = 0
			}
			if held {
				// There may be news that came since.
				s.sub.Close()
				s.sub = s.feed.Subscribe(who.Caller())
				return true, nil
			}
			return s.sub.Reselect(who.Caller()), nil
		}
		timer := time.NewTimer(s.backoff())
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return false, ctx.Err()
		}
	}
}

// keeps reports whether next, though incomplete, has all identities that the
// process has as it was known before.
func (s *stream[T]) keeps(next Standing) bool {
	has, _ := s.feed.Identities(next.Caller())
	had, _ := s.feed.Identities(s.who.Caller())
	for _, e := range had {
		if !slices.ContainsFunc(has, func(h registration.Entry) bool { return h.ID == e.ID && h.SPIFFEID == e.SPIFFEID }) {
			return false
		}
	}
	return true
}

// wait returns what there is next; retry is true where it is time to attest again
// instead, because an attestor failed.
func (s *stream[T]) wait(ctx context.Context) (_ *T, retry bool, _ error) {
	inner := ctx
	if s.who.Incomplete() && s.last != nil {
		var cancel context.CancelFunc
		inner, cancel = context.WithTimeout(ctx, s.backoff())
		defer cancel()
	}
	v, err := s.feed.Next(s.sub, inner)
	if s.none(err) {
		v, err = s.waitWithout(inner, err)
	} else {
		s.without = false
	}
	if err != nil && inner.Err() != nil && ctx.Err() == nil {
		return nil, true, nil
	}
	return v, false, err
}

// none reports whether err says that there is no identity. Bundles that were kept
// are for anyone before the issuer has said who there is.
func (s *stream[T]) none(err error) bool {
	return errors.Is(err, svidcache.ErrNoIdentity) || s.feed.Without != nil && errors.Is(err, svidcache.ErrNotSynced)
}

// waitWithout is wait while there is no identity. A process that had one, and may
// have it still as far as is known, keeps what it was given.
func (s *stream[T]) waitWithout(ctx context.Context, reason error) (*T, error) {
	keeps := s.who.Incomplete() && s.last != nil && !s.without
	if s.feed.Without == nil && !keeps {
		return nil, reason
	}
	for {
		if s.feed.Without != nil && !keeps && (!s.without || closed(s.changed)) {
			v, changed, err := s.feed.Without(reason, s.who.Incomplete())
			s.without, s.changed = true, changed
			return v, err
		}
		timer := time.NewTimer(lookAgain)
		select {
		case <-s.changed:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		v, err := s.feed.Next(s.sub, ctx)
		if !s.none(err) {
			s.without = false
			return v, err
		}
		reason = err
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// backoff doubles with each try, and differs from stream to stream.
func (s *stream[T]) backoff() time.Duration {
	d := min(firstRetry<<min(s.tries, 10), longestRetry)
	s.tries++
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}
