package serverapi

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// maxWait is how long a call is held back at most; one that would wait longer
// is refused. Clients give up at about that time.
const maxWait = 30 * time.Second

// limiter slows the calls of each key down to a rate: a token bucket each, that
// holds burst and starts full. Who asks for more than there is waits. What it
// knows of a key takes some 100 bytes until the bucket is full again, and it
// knows of 2*maxKeys at most.
type limiter[K comparable] struct {
	perToken time.Duration // 1/rate
	burst    int
	maxKeys  int
	// open lets keys that find no room pass, and not wait for one another.
	open  bool
	start time.Time

	mu sync.Mutex // guards what follows
	// full is when a key's bucket is full again, as time since start. A bucket
	// that is full already is as good as none, so that a generation that is
	// older than every wait can be dropped as a whole.
	young, old map[K]time.Duration
	turned     time.Duration // when young was made
	// crowd is the bucket of all keys that find no room.
	crowd time.Duration
}

func newLimiter[K comparable](rate, burst, maxKeys int) *limiter[K] {
	return &limiter[K]{
		perToken: time.Second / time.Duration(rate), burst: burst, maxKeys: maxKeys,
		start: time.Now(), young: map[K]time.Duration{},
	}
}

// wait takes n tokens of key, and waits until it has them. The error is a
// status: ResourceExhausted if n is more than the bucket holds or the wait would
// be too long; or the end of ctx, and then the tokens are given back.
func (l *limiter[K]) wait(ctx context.Context, key K, n int) error {
	if n > l.burst {
		return status.Errorf(codes.ResourceExhausted, "rate (%d) exceeds burst size (%d)", n, l.burst)
	}
	longest := maxWait
	if deadline, ok := ctx.Deadline(); ok {
		longest = min(longest, time.Until(deadline))
	}
	delay := l.take(key, n, longest)
	switch {
	case delay > longest:
		return status.Errorf(codes.ResourceExhausted, "the limit is %d at once and %d a second: try again in %s",
			l.burst, time.Second/l.perToken, (delay-longest).Round(time.Second)+time.Second)
	case delay <= 0:
		return nil
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		l.giveBack(key, n)
		return status.FromContextError(ctx.Err()).Err()
	}
}

// take returns how long to wait for n tokens, which are taken unless that is
// longer than longest.
func (l *limiter[K]) take(key K, n int, longest time.Duration) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Since(l.start)
	if now-l.turned > maxWait+time.Duration(l.burst)*l.perToken {
		l.young, l.old, l.turned = map[K]time.Duration{}, l.young, now
	}
	full, known := l.young[key]
	if !known {
		full, known = l.old[key]
		delete(l.old, key)
	}
	crowded := !known && len(l.young) >= l.maxKeys
	if crowded && l.open {
		return 0
	}
	if crowded {
		full = l.crowd
	}
	full = max(full, now)
	cost := time.Duration(n) * l.perToken
	delay := full + cost - now - time.Duration(l.burst)*l.perToken
	if delay <= longest {
		full += cost
	}
	if crowded {
		l.crowd = full
	} else {
		l.young[key] = full
	}
	return delay
}

// giveBack returns tokens that nobody waits for any more.
func (l *limiter[K]) giveBack(key K, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if full, ok := l.young[key]; ok {
		l.young[key] = full - time.Duration(n)*l.perToken
	}
}

// errLimited words a limiter's refusal for the caller.
func errLimited(what string, err error) error {
	st := status.Convert(err)
	if st.Code() != codes.ResourceExhausted {
		return err
	}
	return statusError(st.Code(), what, fmt.Errorf("%s", st.Message()))
}
