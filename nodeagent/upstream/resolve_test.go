package upstream

import (
	"context"
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"
)

// TestNamesTheIssuerThatIsNotFound: gRPC has lost by then what it looked for.
func TestNamesTheIssuerThatIsNotFound(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l, err := (&Client{issuers: &issuers{}}).dial("issuer.invalid:8081", nil, &tls.Config{VerifyConnection: func(tls.ConnectionState) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer l.conn.Close()
	_, err = grpc_health_v1.NewHealthClient(l.conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err = l.explain(err); !strings.Contains(reason(err), `issuer's name "issuer.invalid" is not found`) {
		t.Error(err)
	}
}
