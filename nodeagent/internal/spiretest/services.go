package spiretest

import (
	"cmp"
	"context"
	"io"
	"maps"
	"slices"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/svidv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

type bundleService struct {
	bundlev1.UnimplementedBundleServer
	s *Server
}

func (b bundleService) GetBundle(context.Context, *bundlev1.GetBundleRequest) (*types.Bundle, error) {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	return b.s.ownBundle(), nil
}

func (b bundleService) GetFederatedBundle(_ context.Context, req *bundlev1.GetFederatedBundleRequest) (*types.Bundle, error) {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	td, err := spiffeid.TrustDomainFromString(req.TrustDomain)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	bundle := b.s.federated[td]
	if bundle == nil {
		return nil, status.Error(codes.NotFound, "bundle not found")
	}
	return b.s.bundleProto(bundle), nil
}

// ownBundle is the trust domain's; s.mu is held.
func (s *Server) ownBundle() *types.Bundle {
	p := s.bundleProto(s.bundle)
	p.SequenceNumber = s.sequence
	return p
}

func (s *Server) bundleProto(b *x509bundle.Bundle) *types.Bundle {
	p := &types.Bundle{TrustDomain: b.TrustDomain().Name(), JwtAuthorities: s.jwt.keys[b.TrustDomain()]}
	for _, cert := range b.X509Authorities() {
		p.X509Authorities = append(p.X509Authorities, &types.X509Certificate{Asn1: cert.Raw, Tainted: slices.ContainsFunc(s.tainted, cert.Equal)})
	}
	return p
}

type entryService struct {
	entryv1.UnimplementedEntryServer
	s *Server
}

// list returns the entries of the calling agent, by ID; s.mu is held.
func (e entryService) list(ctx context.Context) []*types.Entry {
	caller := certID(clientCert(ctx))
	var ps []*types.Entry
	for _, id := range slices.Sorted(maps.Keys(e.s.entries)) {
		if entry := e.s.entries[id]; entry.ParentID == caller && (entry.Template.IsZero() || knowsTemplates(ctx)) {
			ps = append(ps, entry.Proto())
		}
	}
	return ps
}

func (e entryService) GetAuthorizedEntries(ctx context.Context, _ *entryv1.GetAuthorizedEntriesRequest) (*entryv1.GetAuthorizedEntriesResponse, error) {
	e.s.mu.Lock()
	defer e.s.mu.Unlock()
	return &entryv1.GetAuthorizedEntriesResponse{Entries: e.list(ctx)}, nil
}

func (e entryService) SyncAuthorizedEntries(stream grpc.BidiStreamingServer[entryv1.SyncAuthorizedEntriesRequest, entryv1.SyncAuthorizedEntriesResponse]) error {
	e.s.mu.Lock()
	all, size, none := e.list(stream.Context()), e.s.PageSize, e.s.NoSync
	e.s.mu.Unlock()
	if none {
		return status.Error(codes.Unimplemented, "unknown method SyncAuthorizedEntries")
	}
	if size == 0 {
		size = 500
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if len(first.Ids) > 0 || first.OutputMask != nil && !first.OutputMask.RevisionNumber {
		return status.Error(codes.InvalidArgument, "first request")
	}
	if len(all) <= size {
		return stream.Send(&entryv1.SyncAuthorizedEntriesResponse{Entries: all})
	}
	if err := sendRevisions(stream, all, size); err != nil {
		return err
	}
	for {
		req, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		wanted := slices.DeleteFunc(slices.Clone(all), func(p *types.Entry) bool { return !slices.Contains(req.Ids, p.Id) })
		for i, page := range pages(wanted, size/2) {
			if err := stream.Send(&entryv1.SyncAuthorizedEntriesResponse{Entries: page, More: (i+1)*(size/2) < len(wanted)}); err != nil {
				return err
			}
		}
	}
}

func sendRevisions(stream grpc.BidiStreamingServer[entryv1.SyncAuthorizedEntriesRequest, entryv1.SyncAuthorizedEntriesResponse], all []*types.Entry, size int) error {
	for i, page := range pages(all, size) {
		resp := &entryv1.SyncAuthorizedEntriesResponse{More: (i+1)*size < len(all)}
		for _, p := range page {
			resp.EntryRevisions = append(resp.EntryRevisions, &entryv1.EntryRevision{Id: p.Id, RevisionNumber: p.RevisionNumber, CreatedAt: p.CreatedAt})
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
	return nil
}

// pages has at least one page.
func pages(all []*types.Entry, size int) [][]*types.Entry {
	if len(all) == 0 {
		return [][]*types.Entry{nil}
	}
	return slices.Collect(slices.Chunk(all, size))
}

type svidService struct {
	svidv1.UnimplementedSVIDServer
	s *Server
}

func (v svidService) BatchNewX509SVID(ctx context.Context, req *svidv1.BatchNewX509SVIDRequest) (*svidv1.BatchNewX509SVIDResponse, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.MaxBatch > 0 && len(req.Params) > s.MaxBatch {
		return nil, status.Error(codes.ResourceExhausted, "rate limit exceeded")
	}
	s.batches = append(s.batches, len(req.Params))
	caller := certID(clientCert(ctx))
	resp := &svidv1.BatchNewX509SVIDResponse{}
	for _, p := range req.Params {
		result := &svidv1.BatchNewX509SVIDResponse_Result{Status: &types.Status{Message: "OK"}}
		entry, ok := s.authorized(caller, p.EntryId)
		if !ok {
			result.Status = &types.Status{Code: int32(codes.NotFound), Message: "entry not found or not authorized"}
		} else if cert, err := s.sign(entry.SPIFFEID, p.Csr, cmp.Or(entry.X509SVIDTTL, s.SVIDTTL)); err != nil {
			result.Status = &types.Status{Code: int32(status.Code(err)), Message: err.Error()}
		} else {
			result.Svid = x509SVID(entry.SPIFFEID, cert)
		}
		resp.Results = append(resp.Results, result)
	}
	return resp, nil
}
