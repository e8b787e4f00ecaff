package workloadapi

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/nodeagent/svidcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadapi/explain"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadapi/follow"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

const (
	// quiet is how long a caller with the same selectors is not explained again.
	quiet = 30 * time.Second
	// maxExplained bounds what is explained in that time: each reads all entries,
	// and a user can start programs of as many kinds as it likes.
	maxExplained = 100
)

// refusals explains in the log, to the node's operator, why callers have no
// identity. The callers themselves learn only that.
type refusals struct {
	slog     *slog.Logger
	cache    *svidcache.Cache
	prefixes []string // of the selectors that are logged; nil: all

	mu     sync.Mutex
	last   map[string]time.Time // by selectors, or what else is told once
	silent int                  // refusals not explained since the last that was
}

func newRefusals(log *slog.Logger, cache *svidcache.Cache, prefixes []string) *refusals {
	return &refusals{slog: log, cache: cache, prefixes: prefixes, last: make(map[string]time.Time)}
}

// log writes one line about a caller. It says the same as "lanyard agent explain".
func (r *refusals) log(ctx context.Context, who follow.Standing) {
	silent, first := r.first(explain.Join(who.Result().Selectors), time.Now())
	if !first {
		return
	}
	c := explain.Case{Attested: who.Result(), Entries: r.cache.Explain(who.Caller())}
	attrs := []any{"why", c.Verdict()}
	if caller, err := workloadattest.FromContext(ctx); err == nil {
		attrs = append(attrs, "pid", caller.PID(), "uid", caller.UID())
		if name := caller.Socket(); name != "" {
			attrs = append(attrs, "socket", name)
		}
	}
	if len(c.Entries.Near) > 0 {
		near := c.Entries.Near[0]
		attrs = append(attrs, "nearest_entry", near.Entry.ID, "nearest_spiffe_id", near.Entry.Name(), "missing", explain.Join(near.Missing))
	}
	attrs = append(attrs, "selectors", explain.Join(r.loggable(c.Visible())))
	if silent > 0 {
		attrs = append(attrs, "refusals_not_logged", silent)
	}
	r.slog.Warn("no identity issued", attrs...)
}

// warn writes one line, unless there was one under that key just now: callers can
// cause as many as they like.
func (r *refusals) warn(key, msg string, attrs ...any) {
	silent, first := r.first(key, time.Now())
	if !first {
		return
	}
	if silent > 0 {
		attrs = append(attrs, "not_logged", silent)
	}
	r.slog.Warn(msg, attrs...)
}

// loggable are those of selectors that log_selectors names: by their beginning
// before a colon (SPIRE's rule), such as unix or k8s:ns.
func (r *refusals) loggable(selectors []registration.Selector) []registration.Selector {
	if r.prefixes == nil {
		return selectors
	}
	return slices.DeleteFunc(slices.Clone(selectors), func(s registration.Selector) bool {
		return !slices.ContainsFunc(r.prefixes, func(prefix string) bool {
			return s.String() == prefix || strings.HasPrefix(s.String(), prefix+":")
		})
	})
}

// first reports whether a caller was not explained just now and, if so, how many
// were not since.
func (r *refusals) first(key string, now time.Time) (silent int, first bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last, known := r.last[key]
	if known && now.Sub(last) < quiet {
		r.silent++
		return 0, false
	}
	if !known && len(r.last) >= maxExplained {
		for k, at := range r.last {
			if now.Sub(at) >= quiet {
				delete(r.last, k)
			}
		}
		if len(r.last) >= maxExplained {
			r.silent++
			return 0, false
		}
	}
	r.last[key] = now
	silent, r.silent = r.silent, 0
	return silent, true
}
