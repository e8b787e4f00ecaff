package serverapi

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// syncPage is how many entries, or revisions, one message of a sync has at most.
// SPIRE's agents take the length of the first page for it.
const syncPage = 500

// GetAuthorizedEntries returns the calling agent's entries in one answer.
func (s *EntryService) GetAuthorizedEntries(ctx context.Context, req *entryv1.GetAuthorizedEntriesRequest) (*entryv1.GetAuthorizedEntriesResponse, error) {
	entries, err := s.authorized(ctx)
	if err != nil {
		return nil, err
	}
	page, ok := fullPage(entries, req.GetOutputMask())
	if !ok {
		return nil, statusError(codes.ResourceExhausted, "entries do not fit one answer; use SyncAuthorizedEntries", nil)
	}
	return &entryv1.GetAuthorizedEntriesResponse{Entries: page}, nil
}

// SyncAuthorizedEntries sends the calling agent's entries: all of them if they
// are few, and else their revisions first and then the entries it asks for.
func (s *EntryService) SyncAuthorizedEntries(stream grpc.BidiStreamingServer[entryv1.SyncAuthorizedEntriesRequest, entryv1.SyncAuthorizedEntriesResponse]) error {
	req, err := stream.Recv()
	if err != nil {
		return err
	}
	if len(req.GetIds()) > 0 {
		return statusError(codes.InvalidArgument, "specifying IDs on initial request is not supported", nil)
	}
	// Without its revision nobody could tell whether an entry is stale.
	mask := req.GetOutputMask()
	if mask != nil && !mask.GetRevisionNumber() {
		return statusError(codes.InvalidArgument, "revision number cannot be masked", nil)
	}
	entries, err := s.authorized(stream.Context())
	if err != nil {
		return err
	}
	if len(entries) <= syncPage {
		if page, ok := fullPage(entries, mask); ok {
			return stream.Send(&entryv1.SyncAuthorizedEntriesResponse{Entries: page})
		}
	}
	if err := sendRevisions(stream, entries); err != nil {
		return err
	}
	for {
		req, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF), status.Code(err) == codes.Canceled:
			return nil
		case err != nil:
			return err
		}
		if err := sendEntries(stream, entries, req.GetIds(), mask); err != nil {
			return err
		}
	}
}

// templatesKey is the metadata with which an agent says that it can make SPIFFE
// IDs from templates. Others would choke on them.
const templatesKey = "lanyard-templates"

// authorized returns the entries of the agent that is calling, by ID.
func (s *EntryService) authorized(ctx context.Context) ([]registration.Entry, error) {
	caller := CallerFrom(ctx)
	if caller.ID.IsZero() {
		return nil, statusError(codes.Internal, "caller ID missing from request context", nil)
	}
	entries := s.deps.Registry.AuthorizedEntries(caller.ID)
	if slices.Contains(metadata.ValueFromIncomingContext(ctx, templatesKey), "1") {
		return entries, nil
	}
	return slices.DeleteFunc(entries, func(e registration.Entry) bool { return !e.Template.IsZero() }), nil
}

// fullPage returns all entries; false if they do not fit one message.
func fullPage(entries []registration.Entry, mask *types.EntryMask) ([]*types.Entry, bool) {
	room := budget(maxAnswer)
	page := make([]*types.Entry, 0, len(entries))
	for _, e := range entries {
		p := entryProto(e, mask)
		if !room.take(p) {
			return nil, false
		}
		page = append(page, p)
	}
	return page, true
}

type syncSender interface {
	Send(*entryv1.SyncAuthorizedEntriesResponse) error
}

func sendRevisions(stream syncSender, entries []registration.Entry) error {
	for len(entries) > 0 {
		n := min(len(entries), syncPage)
		resp := &entryv1.SyncAuthorizedEntriesResponse{More: n < len(entries)}
		for _, e := range entries[:n] {
			resp.EntryRevisions = append(resp.EntryRevisions, &entryv1.EntryRevision{
				Id: e.ID, RevisionNumber: e.Revision, CreatedAt: e.CreatedAt.Unix(),
			})
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
		entries = entries[n:]
	}
	return nil
}

// sendEntries sends the entries with the IDs, skipping unknown ones, in at least
// one message; the last of them says that there are no more.
func sendEntries(stream syncSender, entries []registration.Entry, ids []string, mask *types.EntryMask) error {
	resp := &entryv1.SyncAuthorizedEntriesResponse{}
	room := budget(maxAnswer)
	for _, id := range slices.Compact(slices.Sorted(slices.Values(ids))) {
		i, ok := slices.BinarySearchFunc(entries, id, func(e registration.Entry, id string) int {
			return strings.Compare(e.ID, id)
		})
		if !ok {
			continue
		}
		p := entryProto(entries[i], mask)
		if len(resp.Entries) == syncPage || !room.take(p) {
			resp.More = true
			if err := stream.Send(resp); err != nil {
				return err
			}
			resp = &entryv1.SyncAuthorizedEntriesResponse{}
			room = maxAnswer
			room.take(p)
		}
		resp.Entries = append(resp.Entries, p)
	}
	return stream.Send(resp)
}
