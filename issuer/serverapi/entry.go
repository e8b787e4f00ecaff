package serverapi

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/store"
)

// EntryService is spire.api.server.entry.v1.Entry. It reads the registry; what
// it has written to the store is in the registry before it answers.
type EntryService struct {
	entryv1.UnimplementedEntryServer
	deps Deps
}

// NewEntryService returns the service.
func NewEntryService(d Deps) *EntryService {
	d.setDefaults()
	return &EntryService{deps: d}
}

// GetEntry returns one entry, expired or not.
func (s *EntryService) GetEntry(_ context.Context, req *entryv1.GetEntryRequest) (*types.Entry, error) {
	if req.GetId() == "" {
		return nil, statusError(codes.InvalidArgument, "missing ID", nil)
	}
	e, ok := s.deps.Registry.Entry(req.GetId())
	if !ok {
		return nil, statusError(codes.NotFound, "entry not found", nil)
	}
	return entryProto(e, req.GetOutputMask()), nil
}

// BatchCreateEntry creates the entries that are valid and new, and answers each
// one by itself. For one like an existing entry the answer has that entry.
func (s *EntryService) BatchCreateEntry(ctx context.Context, req *entryv1.BatchCreateEntryRequest) (*entryv1.BatchCreateEntryResponse, error) {
	room, err := batchBudget(entryIDs(req.GetEntries()))
	if err != nil {
		return nil, err
	}
	results := make([]*entryv1.BatchCreateEntryResponse_Result, len(req.GetEntries()))
	entries := make([]registration.Entry, 0, len(results))
	at := make([]int, 0, len(results)) // the place of each of entries in the request
	for i, p := range req.GetEntries() {
		e, err := s.newEntry(p)
		if err != nil {
			results[i] = &entryv1.BatchCreateEntryResponse_Result{
				Status: room.status(itemStatus(codes.InvalidArgument, "failed to convert entry", err)),
			}
			continue
		}
		entries = append(entries, e)
		at = append(at, i)
	}
	created, rev, err := s.deps.Store.CreateEntries(ctx, entries)
	if len(created) < len(entries) {
		return nil, statusError(codes.Internal, "failed to create entries", err)
	}
	if err := s.deps.Registry.Wait(ctx, rev); err != nil {
		return nil, statusError(codes.Internal, "failed to create entries", err)
	}
	for n, c := range created {
		results[at[n]] = s.createResult(c, req.GetOutputMask(), &room)
	}
	return &entryv1.BatchCreateEntryResponse{Results: results}, nil
}

// newEntry reads an entry that is to be created. Its revision and creation are
// not the client's to choose.
func (s *EntryService) newEntry(p *types.Entry) (registration.Entry, error) {
	e, err := registration.FromProto(p)
	if err != nil {
		return registration.Entry{}, err
	}
	e.Revision, e.CreatedAt = 0, time.Time{}
	return e, s.validate(e)
}

// validate reports why e cannot be an entry here. An administrator's SPIFFE ID
// is nothing for a workload to reach by its selectors.
func (s *EntryService) validate(e registration.Entry) error {
	if err := e.Validate(s.deps.TrustDomain); err != nil {
		return err
	}
	for _, id := range s.deps.AdminIDs {
		if e.Template.Covers(id) {
			return fmt.Errorf("ID template %s: its prefix %s has %s of admin_ids below it", e.Template, e.Template.Prefix(), id)
		}
	}
	return nil
}

func (s *EntryService) createResult(c store.EntryResult, mask *types.EntryMask, room *budget) *entryv1.BatchCreateEntryResponse_Result {
	r := &entryv1.BatchCreateEntryResponse_Result{Status: itemOK()}
	switch {
	case c.Err == nil:
		s.deps.Log.Debug("entry created", entryAttrs(c.Entry)...)
	case errors.Is(c.Err, store.ErrExists) && c.Entry.ID != "":
		r.Status = itemStatus(codes.AlreadyExists, "similar entry already exists", nil)
	default:
		r.Status = room.status(itemStatus(storeCode(c.Err), "failed to create entry", c.Err))
		return r
	}
	r.Entry = room.entry(c.Entry, mask)
	return r
}

// BatchUpdateEntry changes the masked fields of the entries, and answers each
// one by itself.
func (s *EntryService) BatchUpdateEntry(ctx context.Context, req *entryv1.BatchUpdateEntryRequest) (*entryv1.BatchUpdateEntryResponse, error) {
	room, err := batchBudget(entryIDs(req.GetEntries()))
	if err != nil {
		return nil, err
	}
	resp := &entryv1.BatchUpdateEntryResponse{}
	var rev store.Revision
	for _, p := range req.GetEntries() {
		e, done, st := s.update(ctx, p, req.GetInputMask())
		rev = max(rev, done)
		r := &entryv1.BatchUpdateEntryResponse_Result{Status: room.status(st)}
		if st.Code == int32(codes.OK) {
			s.deps.Log.Debug("entry updated", entryAttrs(e)...)
			r.Entry = room.entry(e, req.GetOutputMask())
		}
		resp.Results = append(resp.Results, r)
	}
	if err := s.deps.Registry.Wait(ctx, rev); err != nil {
		return nil, statusError(codes.Internal, "failed to update entries", err)
	}
	return resp, nil
}

func (s *EntryService) update(ctx context.Context, p *types.Entry, mask *types.EntryMask) (registration.Entry, store.Revision, *types.Status) {
	patch, err := readPatch(p, mask)
	if err != nil {
		return registration.Entry{}, 0, itemStatus(codes.InvalidArgument, "failed to convert entry", err)
	}
	e, rev, err := s.deps.Store.UpdateEntry(ctx, p.GetId(), func(e *registration.Entry) error {
		patch.apply(e)
		if err := s.validate(*e); err != nil {
			return &invalidError{err}
		}
		return nil
	})
	if invalid, ok := errors.AsType[*invalidError](err); ok {
		return e, rev, itemStatus(codes.InvalidArgument, "failed to convert entry", invalid.err)
	}
	if err != nil {
		return e, rev, itemStatus(storeCode(err), "failed to update entry", err)
	}
	return e, rev, itemOK()
}

// invalidError tells what the client did wrong from what went wrong.
type invalidError struct{ err error }

func (e *invalidError) Error() string { return e.err.Error() }

// BatchDeleteEntry deletes the entries, and answers each one by itself.
func (s *EntryService) BatchDeleteEntry(ctx context.Context, req *entryv1.BatchDeleteEntryRequest) (*entryv1.BatchDeleteEntryResponse, error) {
	room, err := batchBudget(req.GetIds())
	if err != nil {
		return nil, err
	}
	deleted, rev, err := s.deps.Store.DeleteEntries(ctx, req.GetIds())
	if len(deleted) < len(req.GetIds()) {
		return nil, statusError(codes.Internal, "failed to delete entries", err)
	}
	if err := s.deps.Registry.Wait(ctx, rev); err != nil {
		return nil, statusError(codes.Internal, "failed to delete entries", err)
	}
	resp := &entryv1.BatchDeleteEntryResponse{}
	for i, id := range req.GetIds() {
		r := &entryv1.BatchDeleteEntryResponse_Result{Id: id, Status: itemOK()}
		switch err := deleted[i].Err; {
		case id == "":
			r.Status = itemStatus(codes.InvalidArgument, "missing entry ID", nil)
		case errors.Is(err, store.ErrNotFound):
			r.Status = itemStatus(codes.NotFound, "entry not found", nil)
		case err != nil:
			r.Status = room.status(itemStatus(codes.Internal, "failed to delete entry", err))
		default:
			s.deps.Log.Debug("entry deleted", entryAttrs(deleted[i].Entry)...)
		}
		resp.Results = append(resp.Results, r)
	}
	return resp, nil
}

// storeCode is the code for an error of the store about one entry.
func storeCode(err error) codes.Code {
	switch {
	case errors.Is(err, store.ErrNotFound):
		return codes.NotFound
	case errors.Is(err, store.ErrExists):
		return codes.AlreadyExists
	case errors.Is(err, store.ErrTooLarge):
		return codes.InvalidArgument
	case errors.Is(err, store.ErrReserved):
		return codes.FailedPrecondition
	default:
		return codes.Internal
	}
}

func entryAttrs(e registration.Entry) []any {
	return []any{"entry_id", e.ID, "spiffe_id", e.Name(), "parent_id", e.ParentID.String()}
}
