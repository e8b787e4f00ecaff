package follow

import (
	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/nodeagent/svidcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

// Standing is what a process was found to be. It is a value, and immutable.
type Standing struct {
	result     workloadattest.Result
	incomplete bool
	only       registration.Selector
}

// Found is the standing by an attestation. Only is [svidcache.Caller]'s.
func Found(result workloadattest.Result, only registration.Selector) Standing {
	return Standing{result: result, incomplete: result.Incomplete() != nil, only: only}
}

// Result is what was found.
func (w Standing) Result() workloadattest.Result { return w.result }

// Caller is whom to ask the cache for.
func (w Standing) Caller() svidcache.Caller {
	return svidcache.Caller{Selectors: w.result.Selectors, Only: w.only}
}

// Incomplete reports whether an attestor failed. What it would find is not known:
// an identity that is missing must not be denied.
func (w Standing) Incomplete() bool { return w.incomplete }
