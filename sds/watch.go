package sds

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/workload"
)

// The pause before a source that gave up is watched again. The longest one is
// what an identity that comes late can wait here, so it is short; a watch costs
// the agent one attestation.
const (
	minRetry = 200 * time.Millisecond
	maxRetry = 5 * time.Second
)

// watch feeds the session from the source until ctx is done. It never ends the
// stream: Envoy would only come back, sooner each time than an identity does.
func (s *service) watch(ctx context.Context, ses *session) {
	pause := minRetry
	for {
		err := s.src.WatchX509Context(ctx, func(c *workload.X509Context) error {
			pause = minRetry
			return ses.update(c)
		})
		if ctx.Err() != nil || errors.Is(err, errStreamOver) {
			return
		}
		if errors.Is(ses.lost(err, status.Code(err) == codes.PermissionDenied), errStreamOver) {
			return
		}
		// Between half and the whole pause: an agent's restart must not bring
		// all of its streams back in one instant.
		timer := time.NewTimer(pause/2 + rand.N(pause/2))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		pause = min(2*pause, maxRetry)
	}
}
