package follow

import (
	"slices"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/nodeagent/svidcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

// Standing is what a process was found to be in the course of a call. It is a
// value, and immutable.
type Standing struct {
	result  workloadattest.Result
	missing []string
	only    registration.Selector
}

// Found is the standing by a first attestation. Only is [svidcache.Caller]'s.
func Found(result workloadattest.Result, only registration.Selector) Standing {
	w := Standing{result: result, only: only}
	for _, r := range result.Reports {
		if r.Err != nil {
			w.missing = append(w.missing, r.Plugin)
		}
	}
	return w
}

// Then is the standing by a later attestation of the same process. An attestor
// that failed takes nothing away by that: what it found before stays, for a
// process doesn't become another container's.
func (w Standing) Then(next workloadattest.Result) Standing {
	if next.Incomplete() == nil {
		return Standing{result: next, only: w.only}
	}
	merged := slices.Clone(next.Selectors)
	var missing []string
	for _, r := range next.Reports {
		switch {
		case r.Err == nil:
		case slices.Contains(w.missing, r.Plugin):
			missing = append(missing, r.Plugin)
		default:
			for _, sel := range w.result.Selectors {
				if sel.Type == r.Plugin && !slices.Contains(merged, sel) {
					merged = append(merged, sel)
				}
			}
		}
	}
	next.Selectors = registration.SortSelectors(merged)
	return Standing{result: next, missing: missing, only: w.only}
}

// Result is what was found, with what stayed.
func (w Standing) Result() workloadattest.Result { return w.result }

// Caller is whom to ask the cache for.
func (w Standing) Caller() svidcache.Caller {
	return svidcache.Caller{Selectors: w.result.Selectors, Only: w.only}
}

// Incomplete reports whether an attestor has failed each time so far. What it
// would find is not known: an identity that is missing must not be denied.
func (w Standing) Incomplete() bool { return w.missing != nil }
