package workload

import (
	"math/rand/v2"
	"time"
)

// backoff says how long to wait before the next try. The first try after a
// failure is immediate (SPIFFE Workload API, section 4.2: a client whose stream
// ends reconnects immediately), later ones double from min to max.
type backoff struct {
	min, max time.Duration
	failures int // in a row
}

// next returns the delay before the next try, jittered by a fifth either way so
// that the workloads of a node do not return as one crowd.
func (b *backoff) next() time.Duration {
	b.failures++
	if b.failures == 1 {
		return 0
	}
	d := b.max
	if shift := b.failures - 2; shift < 16 {
		d = min(b.min<<shift, b.max)
	}
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}

// succeeded tells b of a stream that answered and lived for the given time. Only
// one that outlived the longest delay counts, so a server that answers and hangs
// up at once is not hammered.
func (b *backoff) succeeded(lived time.Duration) {
	if lived >= b.max {
		b.failures = 0
	}
}
