package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// healthTimeout bounds a health check: one that hangs is not healthy.
const healthTimeout = 10 * time.Second

// Health is what the healthcheck verbs share.
type Health struct{ shallow, verbose bool }

// AddFlags adds SPIRE's flags.
func (h *Health) AddFlags(fs *pflag.FlagSet) {
	fs.BoolVar(&h.shallow, "shallow", false, "taken for SPIRE's sake; the check is the same")
	fs.BoolVar(&h.verbose, "verbose", false, "say what is done")
}

// Start says what is about to be checked, "server" or "agent", if that is wanted.
func (h *Health) Start(env *Env, what string) {
	if h.verbose {
		fmt.Fprintf(env.Stdout, "Checking %s health...\n", what)
	}
}

// Check asks cc's server for its health (grpc.health.v1). nil is healthy.
func (h *Health) Check(ctx context.Context, env *Env, cc *grpc.ClientConn, what string) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	resp, err := grpc_health_v1.NewHealthClient(cc).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		if h.verbose {
			fmt.Fprintf(env.Stderr, "Failed to check health: %v\n", err)
		}
		return fmt.Errorf("unable to determine health: %w", err)
	}
	if resp.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		return fmt.Errorf("%s returned status %q", what, resp.Status)
	}
	return nil
}
