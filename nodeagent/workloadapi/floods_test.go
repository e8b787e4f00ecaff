package workloadapi

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/lanyard-mtls/lanyard/nodeagent/svidcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

type unknown struct{}

func (unknown) AttestContext(context.Context) (workloadattest.Result, error) {
	return workloadattest.Result{}, errors.New("its user or group changed")
}

// Anyone can call, as often as they like: that must not fill the log.
func TestCallersCannotFloodTheLog(t *testing.T) {
	var log bytes.Buffer
	s := New(Config{
		Attestor: unknown{}, Cache: svidcache.New(svidcache.Config{}), Stopping: t.Context(),
		Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	h := s.NewHealth(func(context.Context, int) (workloadattest.Result, workloadattest.ProcessInfo, error) {
		return workloadattest.Result{}, workloadattest.ProcessInfo{}, errors.New("no /proc")
	}, false)
	for range 1000 {
		if _, err := s.attest(t.Context()); err == nil {
			t.Fatal("attested")
		}
		if _, err := h.Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
			t.Fatal(err)
		}
		if err := s.unsigned(t.Context(), errors.New("the issuer is away")); err == nil {
			t.Fatal("signed")
		}
	}
	for _, text := range []string{"caller not attested", "health check failed", "cannot get a JWT-SVID signed"} {
		if n := strings.Count(log.String(), text); n != 1 {
			t.Errorf("%q is in the log %d times", text, n)
		}
	}
}
