package workloadapi

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

type healthStream struct {
	grpc.ServerStreamingServer[healthpb.HealthCheckResponse]
	ctx  context.Context
	sent chan healthpb.HealthCheckResponse_ServingStatus
}

func (s *healthStream) Context() context.Context { return s.ctx }

func (s *healthStream) Send(r *healthpb.HealthCheckResponse) error {
	s.sent <- r.Status
	return nil
}

func TestHealth(t *testing.T) {
	inService(t, func(t *testing.T, s *svc, c *caller, apply func(ids ...string), _ *bytes.Buffer) {
		attest := func(ctx context.Context, pid int) (workloadattest.Result, workloadattest.ProcessInfo, error) {
			r, err := c.AttestContext(ctx)
			return r, workloadattest.ProcessInfo{}, err
		}
		h := s.NewHealth(attest, false)
		check := func(what string, want healthpb.HealthCheckResponse_ServingStatus) {
			t.Helper()
			got, err := h.Check(t.Context(), &healthpb.HealthCheckRequest{})
			if err != nil || got.Status != want {
				t.Errorf("%s: %v, %v, want %s", what, got, err, want)
			}
		}
		watched := &healthStream{ctx: t.Context(), sent: make(chan healthpb.HealthCheckResponse_ServingStatus)}
		go h.Watch(&healthpb.HealthCheckRequest{}, watched)
		if got := <-watched.sent; got != healthpb.HealthCheckResponse_NOT_SERVING {
			t.Errorf("watched before the first sync: %s", got)
		}
		check("before the first sync", healthpb.HealthCheckResponse_NOT_SERVING)
		apply("1")
		if got := <-watched.sent; got != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("watched after it: %s", got)
		}
		check("with an identity", healthpb.HealthCheckResponse_SERVING)
		c.become("3", nil)
		check("without", healthpb.HealthCheckResponse_SERVING)
		c.is(docker(errAway))
		check("with an attestor away", healthpb.HealthCheckResponse_SERVING)
		c.become("1", errors.New("no /proc"))
		check("unable to attest", healthpb.HealthCheckResponse_NOT_SERVING)
		h = s.NewHealth(attest, true)
		check("with the Workload API disabled", healthpb.HealthCheckResponse_SERVING)
		_, err := h.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "x"})
		wantStatus(t, "a service's", err, codes.InvalidArgument, "per-service health is not supported")
	})
}
