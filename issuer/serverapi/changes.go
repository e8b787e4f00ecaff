package serverapi

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/changesv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// ChangesService is lanyard.changes.v1.Changes.
type ChangesService struct {
	changesv1.UnsafeChangesServer
	deps  Deps
	guard *guard
}

// NewChangesService returns the service.
func NewChangesService(d Deps) *ChangesService {
	d.setDefaults()
	return &ChangesService{deps: d, guard: newGuard(d)}
}

// Watch sends all that the agent may know whenever anything changes.
func (s *ChangesService) Watch(req *changesv1.WatchRequest, stream grpc.ServerStreamingServer[changesv1.WatchResponse]) error {
	ctx := stream.Context()
	caller := CallerFrom(ctx)
	heartbeat := time.NewTicker(30 * time.Second)
	defer heartbeat.Stop()
	for {
		changed := s.deps.Registry.Changed()
		if err := s.guard.authorize(ctx, changesv1.Changes_Watch_FullMethodName, caller); err != nil {
			return err
		}
		resp := &changesv1.WatchResponse{Reset_: true, Complete: true}
		federated := map[string]bool{}
		for _, e := range s.deps.Registry.AuthorizedEntries(caller.ID) {
			if !e.Template.IsZero() && !req.GetIdTemplates() {
				continue
			}
			resp.Entries = append(resp.Entries, e.Proto())
			for _, td := range e.FederatesWith {
				if b, ok := s.deps.Registry.FederatedBundle(td); ok && !federated[td.Name()] {
					federated[td.Name()] = true
					resp.Bundles = append(resp.Bundles, b)
				}
			}
		}
		if b := s.deps.Registry.Bundle(); b != nil {
			resp.Bundles = append([]*types.Bundle{b}, resp.Bundles...)
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
	wait:
		for {
			select {
			case <-changed:
				break wait
			case <-heartbeat.C:
				if err := stream.Send(&changesv1.WatchResponse{Complete: true}); err != nil {
					return err
				}
			case <-ctx.Done():
				return statusError(codes.Canceled, "watch", ctx.Err())
			}
		}
	}
}
