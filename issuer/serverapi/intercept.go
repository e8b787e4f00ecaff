package serverapi

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/mtls"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// gate is what every call of one listener passes: who calls, may it, and one
// line in the log if it changed or signed something or was refused.
type gate struct {
	guard *guard
	local bool
	now   func() time.Time
	log   *slog.Logger
}

// call is one call in progress.
type call struct {
	gate   *gate
	method string
	caller Caller
	start  time.Time
	// attrs say what the call was about. Only the handler's goroutine adds.
	attrs []slog.Attr
}

type callKey struct{}

// annotate adds attrs, which must hold no secret, to the call's line in the log.
func annotate(ctx context.Context, attrs ...slog.Attr) {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		c.attrs = append(c.attrs, attrs...)
	}
}

func (g *gate) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	ctx, c, err := g.enter(ctx, info.FullMethod)
	if err != nil {
		return nil, c.end(ctx, err)
	}
	resp, err := next(ctx, req)
	c.attrs = append(c.attrs, batchAttrs(resp)...)
	return resp, c.end(ctx, err)
}

func (g *gate) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx, c, err := g.enter(ss.Context(), info.FullMethod)
	if err != nil {
		return c.end(ctx, err)
	}
	return c.end(ctx, next(srv, &callStream{ServerStream: ss, ctx: ctx}))
}

// callStream is a stream whose context knows the caller.
type callStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *callStream) Context() context.Context { return s.ctx }

// enter identifies and authorizes the caller.
func (g *gate) enter(ctx context.Context, method string) (context.Context, *call, error) {
	c := &call{gate: g, method: method, start: g.now()}
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

// callerOf reads the caller off the connection; the handshake has verified it.
func (g *gate) callerOf(ctx context.Context) (Caller, error) {
	if g.local {
		return Caller{Local: true}, nil
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Caller{}, status.Error(codes.Internal, "no peer information available")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
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
	return Caller{ID: id, Cert: info.State.PeerCertificates[0]}, nil
}

// end logs the call and returns its error.
func (c *call) end(ctx context.Context, err error) error {
	code := status.Code(err)
	level := slog.LevelInfo
	switch {
	case code == codes.PermissionDenied, code == codes.Unauthenticated:
		level = slog.LevelWarn
	case code == codes.Internal, code == codes.Unknown, code == codes.DataLoss:
		level = slog.LevelError
	case rules[c.method].effect == reads:
		level = slog.LevelDebug
	}
	if !c.gate.log.Enabled(ctx, level) {
		return err
	}
	attrs := []slog.Attr{
		slog.String("method", c.method),
		slog.String("caller", c.caller.String()),
		slog.String("code", code.String()),
		slog.Duration("took", c.gate.now().Sub(c.start)),
	}
	if p, ok := peer.FromContext(ctx); ok && !c.gate.local {
		attrs = append(attrs, slog.String("address", p.Addr.String()))
	}
	attrs = append(attrs, c.attrs...)
	if err != nil {
		st := status.Convert(err)
		attrs = append(attrs, slog.String("error", clip(st.Message())))
		for _, detail := range st.Details() {
			if d, ok := detail.(*types.PermissionDeniedDetails); ok {
				attrs = append(attrs, slog.String("reason", d.GetReason().String()))
			}
		}
	}
	c.gate.log.LogAttrs(ctx, level, "call", attrs...)
	return err
}
