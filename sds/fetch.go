package sds

import (
	"context"
	"errors"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/workload"
)

// errFetched ends a watch that was begun for one answer.
var errFetched = errors.New("fetched")

// FetchSecrets answers once, from what there is. Unlike a stream it does not
// wait for names: one that is not there is InvalidArgument, in SPIRE's words. The
// source's errors are passed on with their codes.
func (s *service) FetchSecrets(ctx context.Context, req *discoveryv3.DiscoveryRequest) (*discoveryv3.DiscoveryResponse, error) {
	if err := checkType(req.GetTypeUrl()); err != nil {
		return nil, err
	}
	if err := checkNames(req.GetResourceNames(), ledger{}); err != nil {
		return nil, err
	}
	var resp *discoveryv3.DiscoveryResponse
	var failure error
	err := s.src.WatchX509Context(ctx, func(x *workload.X509Context) error {
		resp, failure = s.fetch(x, req)
		return errFetched
	})
	switch {
	case failure != nil:
		return nil, failure
	case resp != nil:
		return resp, nil
	case ctx.Err() != nil:
		return nil, status.FromContextError(ctx.Err()).Err()
	case err == nil:
		return nil, status.Error(codes.Unavailable, "no answer from the source of identities")
	case status.Code(err) == codes.Unknown:
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return nil, err
}

func (s *service) fetch(x *workload.X509Context, req *discoveryv3.DiscoveryRequest) (*discoveryv3.DiscoveryResponse, error) {
	c := s.catalogs.acquire(x, nodeFrom(req.GetNode()).plain(s.opts.DisableSPIFFECertValidation))
	defer s.catalogs.release(c)
	names := req.GetResourceNames()
	if len(names) == 0 {
		names = []string{wildcard}
	}
	l := newLedger()
	l.replace(names)
	rs, _ := l.due(c, time.Now())
	l.sent(rs)
	if missing := l.unsent(); len(missing) > 0 {
		return nil, status.Errorf(codes.InvalidArgument, "workload is not authorized for the requested identities %q", abbreviateAll(missing))
	}
	return &discoveryv3.DiscoveryResponse{VersionInfo: versionOf(rs), Resources: anysOf(rs), TypeUrl: secretType}, nil
}
