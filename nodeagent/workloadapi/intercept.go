package workloadapi

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// securityHeader must be "true" in the metadata of each call (SPIFFE Workload
// Endpoint, section 3): a browser or proxy led astray cannot set it.
const securityHeader = "workload.spiffe.io"

func checkHeader(ctx context.Context) error {
	if v := metadata.ValueFromIncomingContext(ctx, securityHeader); len(v) != 1 || v[0] != "true" {
		return status.Error(codes.InvalidArgument, "security header missing from request")
	}
	return nil
}

// UnaryInterceptor requires the security header of the Workload API's calls,
// keeps SDS's to their rate limits, and tells Config.Call of all.
func (s *Service) UnaryInterceptor(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	began := time.Now()
	var resp any
	err := s.admit(ctx, info.FullMethod)
	if err == nil {
		resp, err = handler(ctx, req)
	}
	s.ended(info.FullMethod, err, began)
	return resp, err
}

// StreamInterceptor is [Service.UnaryInterceptor] for streams.
func (s *Service) StreamInterceptor(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	began := time.Now()
	err := s.admit(stream.Context(), info.FullMethod)
	if err == nil {
		err = handler(srv, stream)
	}
	s.ended(info.FullMethod, err, began)
	return err
}

// admit returns why the method may not be called. What needs the caller's
// selectors is left to the Workload API's own handlers, which attest it anyway.
func (s *Service) admit(ctx context.Context, method string) error {
	if strings.HasPrefix(method, "/SpiffeWorkloadAPI/") {
		return checkHeader(ctx)
	}
	if !s.limits.has(method) {
		return nil
	}
	who, err := s.attest(ctx)
	if err != nil {
		return err
	}
	return s.limit(ctx, method, who)
}

func (s *Service) ended(method string, err error, began time.Time) {
	if s.cfg.Call != nil {
		s.cfg.Call(method, status.Code(err).String(), time.Since(began))
	}
}
