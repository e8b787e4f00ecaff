//go:build !noopa

package sidecarcmd

import (
	"log/slog"

	"github.com/lanyard-mtls/lanyard/sidecar/policy"
	"github.com/lanyard-mtls/lanyard/sidecar/policy/rego"
)

// regoEngine gives what makes engines of Open Policy Agent.
func regoEngine(log *slog.Logger) func(policy.Rego) (policy.Engine, error) {
	return func(source policy.Rego) (policy.Engine, error) { return rego.New(source, log) }
}
