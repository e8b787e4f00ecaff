package workloadapi

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/nodeagent/svidcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

const (
	// quiet is how long a caller with the same selectors is not explained again.
	quiet = 30 * time.Second
	// maxExplained bounds what is remembered for that.
	maxExplained = 1000
)

// refusals explains in the log, to the node's operator, why callers have no
// identity. The callers themselves learn only that.
type refusals struct {
	slog  *slog.Logger
	cache *svidcache.Cache

	mu   sync.Mutex
	last map[string]time.Time // by selectors
}

func newRefusals(log *slog.Logger, cache *svidcache.Cache) *refusals {
	return &refusals{slog: log, cache: cache, last: make(map[string]time.Time)}
}

func (r *refusals) log(ctx context.Context, selectors []registration.Selector) {
	if !r.first(selectors, time.Now()) {
		return
	}
	attrs := []any{"selectors", joinSelectors(selectors)}
	if caller, err := workloadattest.FromContext(ctx); err == nil {
		attrs = append(attrs, "pid", caller.PID())
	}
	if x := r.cache.Explain(svidcache.Caller{Selectors: selectors}); len(x.Near) > 0 {
		near := x.Near[0]
		attrs = append(attrs, "nearest_entry", near.Entry.ID, "nearest_spiffe_id", near.Entry.SPIFFEID, "missing", joinSelectors(near.Missing))
	} else {
		attrs = append(attrs, "nearest_entry", "none: the issuer has no entry for workloads of this agent")
	}
	r.slog.Warn("no identity issued", attrs...)
}

// first reports whether selectors were not explained just now.
func (r *refusals) first(selectors []registration.Selector, now time.Time) bool {
	key := joinSelectors(selectors)
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.last[key]) < quiet {
		return false
	}
	if len(r.last) >= maxExplained {
		for k, at := range r.last {
			if now.Sub(at) >= quiet {
				delete(r.last, k)
			}
		}
		if len(r.last) >= maxExplained {
			return false
		}
	}
	r.last[key] = now
	return true
}

func joinSelectors(selectors []registration.Selector) string {
	texts := make([]string, len(selectors))
	for i, s := range selectors {
		texts[i] = s.String()
	}
	return strings.Join(texts, " ")
}
