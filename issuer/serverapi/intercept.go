package serverapi

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/mtls"
)

// gate is what every call of one listener passes: who calls, may it, must it
// wait, and what of it is logged.
type gate struct {
	guard  *guard
	local  bool
	deps   Deps
	limits *limits // nil on the admin socket
}

// call is one call in progress.
type call struct {
	gate   *gate
	number uint64
	method string
	caller Caller
	start  time.Time
	// attrs say what the call was about, outcomes what became of each part of a
	// batch. Only the handler's goroutine adds.
	attrs    []slog.Attr
	outcomes []outcome
	expected bool // a denial that ends it is nothing to look into
}

type callKey struct{}

// annotate adds attrs, which must hold no secret, to the call's line in the log.
func annotate(ctx context.Context, attrs ...slog.Attr) {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		c.attrs = append(c.attrs, attrs...)
	}
}

// expected says that a denial that ends the call is in the order of things.
func expected(ctx context.Context) {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		c.expected = true
	}
}

// report says what became of the parts of a batch.
func report(ctx context.Context, outcomes []outcome) {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		c.outcomes = append(c.outcomes, outcomes...)
	}
}

// limitsOf are the limits that the call is subject to; nil for none.
func limitsOf(ctx context.Context) *limits {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		return c.gate.limits
	}
	return nil
}

func (g *gate) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	ctx, c, err := g.enter(ctx, info.FullMethod)
	if err == nil {
		err = g.hold(ctx, c, req)
	}
	if err != nil {
		return nil, c.end(ctx, err)
	}
	resp, err := next(ctx, req)
	c.outcomes = append(c.outcomes, outcomesOf(resp)...)
	return resp, c.end(ctx, err)
}

// hold holds the call back as its limits say. Who had to wait may have lost its
// rights meanwhile.
func (g *gate) hold(ctx context.Context, c *call, req any) error {
	start := time.Now()
	if err := g.limits.unary(ctx, c.method, c.caller, req); err != nil {
		return err
	}
	held := time.Since(start)
	if held < time.Millisecond {
		return nil
	}
	c.attrs = append(c.attrs, slog.Duration("held_by_limit", held))
	return g.guard.authorize(ctx, c.method, c.caller)
}

func (g *gate) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx, c, err := g.enter(ss.Context(), info.FullMethod)
	if err != nil {
		return c.end(ctx, err)
	}
	s := &callStream{ServerStream: ss, ctx: ctx, call: c}
	err = next(srv, s)
	if s.denied != nil { // whatever the method made of it
		err = s.denied
	}
	return c.end(ctx, err)
}

// callStream is a stream whose context knows the caller, and whose caller is
// authorized again with each message: what ends its rights ends the stream.
type callStream struct {
	grpc.ServerStream
	ctx  context.Context
	call *call
	met  bool // there was a message
	// denied is why the caller may not go on; nil if it may.
	denied error
}

func (s *callStream) Context() context.Context { return s.ctx }

func (s *callStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil || !s.met || rules[s.call.method].allow&callerAny != 0 {
		s.met = true
		return err
	}
	s.denied = s.call.gate.guard.authorize(s.ctx, s.call.method, s.call.caller)
	return s.denied
}

func (g *gate) begin(method string) *call {
	return &call{gate: g, method: method, number: g.guard.calls.Add(1), start: g.deps.Now()}
}

// enter identifies and authorizes the caller.
func (g *gate) enter(ctx context.Context, method string) (context.Context, *call, error) {
	c := g.begin(method)
	caller, err := g.callerOf(ctx)
	if err != nil {
		return ctx, c, err
	}
	c.caller = caller
	if err := g.guard.authorize(ctx, method, caller); err != nil {
		return ctx, c, err
	}
	return context.WithValue(WithCaller(ctx, caller), callKey{}, c), c, nil
}

// callerOf reads the caller off the connection. The handshake has verified it;
// it is verified again when the bundle has changed since.
func (g *gate) callerOf(ctx context.Context) (Caller, error) {
	if g.local {
		return Caller{Local: true}, nil
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Caller{}, status.Error(codes.Internal, "no peer information available")
	}
	info, ok := p.AuthInfo.(*connInfo)
	if !ok {
		return Caller{}, status.Error(codes.Internal, "connection is not TLS")
	}
	id, err := mtls.PeerID(info.State)
	switch {
	case errors.Is(err, mtls.ErrNoPeerCertificate):
		return Caller{}, nil
	case err != nil:
		return Caller{}, statusError(codes.Unauthenticated, "client certificate", err)
	}
	caller := Caller{ID: id, Cert: info.State.PeerCertificates[0]}
	if g.guard.expired(caller) {
		return caller, nil // agents are told so
	}
	if err := g.guard.source.verify(info, g.deps.Now()); err != nil {
		return Caller{}, statusError(codes.Unauthenticated, "client certificate", err)
	}
	return caller, nil
}
