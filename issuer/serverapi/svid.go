package serverapi

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/svidv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/ca"
)

// SVIDService is spire.api.server.svid.v1.SVID.
type SVIDService struct {
	svidv1.UnsafeSVIDServer
	deps Deps
}

// NewSVIDService returns the service.
func NewSVIDService(d Deps) *SVIDService {
	d.setDefaults()
	return &SVIDService{deps: d}
}

// maxBatch is how many SVIDs one call may ask for, SPIRE's limit: it is the
// burst of one agent, and its answer fits a message.
const maxBatch = 500

// perSigner is how many SVIDs of a batch are worth another goroutine: each is
// some 0.1 ms of work.
const perSigner = 4

// BatchNewX509SVID signs SVIDs for entries of the calling agent; the results are
// in the order of the request. Of a CSR only its key counts. An entry ID
// "ID~/path" asks for the instance at that path of the template ID.
func (s *SVIDService) BatchNewX509SVID(ctx context.Context, req *svidv1.BatchNewX509SVIDRequest) (*svidv1.BatchNewX509SVIDResponse, error) {
	params := req.GetParams()
	switch {
	case len(params) == 0:
		return nil, statusError(codes.InvalidArgument, "missing parameters", nil)
	case len(params) > maxBatch:
		return nil, statusError(codes.ResourceExhausted, fmt.Sprintf("%d parameters: at most %d in a call", len(params), maxBatch), nil)
	}
	results := make([]*svidv1.BatchNewX509SVIDResponse_Result, len(params))
	outcomes := make([]outcome, len(params))
	agent := CallerFrom(ctx).ID
	inParallel(len(params), func(i int) {
		if ctx.Err() != nil {
			return
		}
		o := outcome{name: params[i].GetEntryId()}
		results[i] = &svidv1.BatchNewX509SVIDResponse_Result{}
		results[i].Svid, results[i].Status = s.newX509SVID(ctx, agent, params[i], &o)
		o.status = results[i].Status
		outcomes[i] = o
	})
	if err := ctx.Err(); err != nil {
		return nil, statusError(codes.Canceled, "signing ended early", err)
	}
	report(ctx, outcomes)
	return &svidv1.BatchNewX509SVIDResponse{Results: results}, nil
}

// inParallel calls do for each of 0..n-1, on as many goroutines as there are
// processors, where there is enough to do. It returns when all have returned.
func inParallel(n int, do func(i int)) {
	workers := min(runtime.GOMAXPROCS(0), (n+perSigner-1)/perSigner)
	var next atomic.Int64
	work := func() {
		for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
			do(i)
		}
	}
	var others sync.WaitGroup
	for range workers - 1 {
		others.Go(work)
	}
	work()
	others.Wait()
}

// newX509SVID signs one SVID; where it returns nil, the status says why.
func (s *SVIDService) newX509SVID(ctx context.Context, agent spiffeid.ID, p *svidv1.NewX509SVIDParams, o *outcome) (*types.X509SVID, *types.Status) {
	switch {
	case p.GetEntryId() == "":
		return nil, itemStatus(codes.InvalidArgument, "missing entry ID", nil)
	case len(p.GetCsr()) == 0:
		return nil, itemStatus(codes.InvalidArgument, "missing CSR", nil)
	}
	entry, ok := s.deps.Registry.AuthorizedEntry(agent, p.GetEntryId())
	if !ok {
		return nil, itemStatus(codes.NotFound, "entry not found or not authorized", nil)
	}
	csr, err := ca.ParseCSR(p.GetCsr())
	if err != nil {
		return nil, itemStatus(codes.InvalidArgument, err.Error(), nil)
	}
	svid, err := s.deps.CA.IssueX509SVID(ctx, ca.Params{
		ID:        entry.SPIFFEID,
		PublicKey: csr.PublicKey,
		DNSNames:  entry.DNSNames,
		TTL:       entry.X509SVIDTTL,
	})
	if err != nil {
		return nil, itemStatus(signCode(err), "failed to sign X509-SVID", err)
	}
	o.spiffeID, o.serial = entry.SPIFFEID.String(), svid.Serial.String()
	if s.deps.Log.Enabled(ctx, slog.LevelDebug) {
		s.deps.Log.LogAttrs(ctx, slog.LevelDebug, "X509-SVID signed",
			slog.String("spiffe_id", o.spiffeID), slog.String("serial", o.serial), slog.Time("expires", svid.ExpiresAt),
			slog.String("entry", entry.ID), slog.String("agent", agent.String()))
	}
	return &types.X509SVID{Id: registration.IDProto(entry.SPIFFEID), CertChain: svid.Chain, ExpiresAt: svid.ExpiresAt.Unix()}, itemOK()
}
