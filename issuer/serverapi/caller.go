package serverapi

import (
	"context"
	"crypto/x509"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Caller is who makes a call, as far as the connection proves it. The zero
// Caller came over TCP without a client certificate.
type Caller struct {
	// Local callers came over the admin socket; they have no ID.
	Local bool
	// ID is the verified SPIFFE ID of the client certificate; zero without one.
	ID spiffeid.ID
	// Cert is the verified leaf, nil without one.
	Cert *x509.Certificate
}

// String names the caller for the log: "local", its SPIFFE ID, or "none".
func (c Caller) String() string {
	switch {
	case c.Local:
		return "local"
	case !c.ID.IsZero():
		return c.ID.String()
	default:
		return "none"
	}
}

type callerKey struct{}

// WithCaller returns a context that carries caller, as the interceptors hand
// it to every method.
func WithCaller(ctx context.Context, caller Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, caller)
}

// CallerFrom returns the caller of this call; the zero Caller, to whom only
// the methods open to any are allowed, when there is none.
func CallerFrom(ctx context.Context) Caller {
	caller, _ := ctx.Value(callerKey{}).(Caller)
	return caller
}
