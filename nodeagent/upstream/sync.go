package upstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// syncer fetches the agent's entries, and of many only those that changed. The
// zero value is ready.
type syncer struct {
	known map[string]registration.Entry
	// getAll is set once the issuer turned out not to have the sync.
	getAll bool
}

// entryMask asks for what an agent needs. DNS names and TTL, which spire-agent
// does not ask for, tell whether a change of an entry is one of its certificate.
func entryMask() *types.EntryMask {
	return &types.EntryMask{
		SpiffeId: true, ParentId: true, Selectors: true, X509SvidTtl: true, JwtSvidTtl: true, FederatesWith: true,
		Admin: true, Downstream: true, ExpiresAt: true, DnsNames: true, RevisionNumber: true,
		StoreSvid: true, Hint: true, CreatedAt: true, AdditionalAttributes: true,
	}
}

// sync returns all entries of the agent, ordered by ID.
func (s *syncer) sync(ctx context.Context, conn *grpc.ClientConn, log *slog.Logger) ([]registration.Entry, error) {
	client, ctx := entryv1.NewEntryClient(conn), withTemplates(ctx)
	if !s.getAll {
		next, err := s.syncOnce(ctx, client, log)
		if status.Code(err) != codes.Unimplemented {
			if err != nil {
				return nil, err
			}
			s.known = next
			return s.sorted(), nil
		}
		s.getAll = true
	}
	resp, err := client.GetAuthorizedEntries(ctx, &entryv1.GetAuthorizedEntriesRequest{OutputMask: entryMask()})
	if err != nil {
		return nil, err
	}
	s.known = make(map[string]registration.Entry)
	addEntries(s.known, resp.Entries, log)
	return s.sorted(), nil
}

func (s *syncer) sorted() []registration.Entry {
	entries := make([]registration.Entry, 0, len(s.known))
	for _, id := range slices.Sorted(maps.Keys(s.known)) {
		entries = append(entries, s.known[id])
	}
	return entries
}

// syncOnce speaks SyncAuthorizedEntries: a short list comes whole; of a long one
// the revisions come in pages, and then what the agent asks for.
func (s *syncer) syncOnce(ctx context.Context, client entryv1.EntryClient, log *slog.Logger) (map[string]registration.Entry, error) {
	ctx, cancel := context.WithCancel(ctx) // ends the stream on every path
	defer cancel()
	stream, err := client.SyncAuthorizedEntries(ctx)
	if err != nil {
		return nil, err
	}
	if err := send(stream, &entryv1.SyncAuthorizedEntriesRequest{OutputMask: entryMask()}); err != nil {
		return nil, err
	}
	resp, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	next := make(map[string]registration.Entry)
	if len(resp.EntryRevisions) == 0 {
		addEntries(next, resp.Entries, log)
		return next, stream.CloseSend()
	}
	pageSize := len(resp.EntryRevisions)
	stale, err := s.compare(stream, resp, next)
	if err != nil {
		return nil, err
	}
	for ids := range slices.Chunk(stale, pageSize) {
		if err := fetchEntries(stream, ids, next, log); err != nil {
			return nil, err
		}
	}
	return next, stream.CloseSend()
}

type syncStream = grpc.BidiStreamingClient[entryv1.SyncAuthorizedEntriesRequest, entryv1.SyncAuthorizedEntriesResponse]

// send leaves it to Recv to tell why a stream has ended.
func send(stream syncStream, req *entryv1.SyncAuthorizedEntriesRequest) error {
	if err := stream.Send(req); err != nil {
		if _, recvErr := stream.Recv(); recvErr != nil {
			return recvErr
		}
		return err
	}
	return nil
}

// compare reads all pages of revisions, puts the entries that are known at these
// revisions into next and returns the IDs of the others.
func (s *syncer) compare(stream syncStream, page *entryv1.SyncAuthorizedEntriesResponse, next map[string]registration.Entry) ([]string, error) {
	var stale []string
	for {
		if len(page.Entries) > 0 {
			return nil, errors.New("protocol violated by the issuer: entries among the revisions")
		}
		for _, rev := range page.EntryRevisions {
			known, ok := s.known[rev.Id]
			if ok && known.Revision == rev.RevisionNumber && (rev.CreatedAt == 0 || known.CreatedAt.Unix() == rev.CreatedAt) {
				next[rev.Id] = known
			} else {
				stale = append(stale, rev.Id)
			}
		}
		if !page.More {
			return stale, nil
		}
		var err error
		if page, err = stream.Recv(); err != nil {
			return nil, err
		}
	}
}

func fetchEntries(stream syncStream, ids []string, next map[string]registration.Entry, log *slog.Logger) error {
	if err := send(stream, &entryv1.SyncAuthorizedEntriesRequest{Ids: ids}); err != nil {
		return err
	}
	for {
		page, err := stream.Recv()
		if err != nil {
			return err
		}
		if len(page.EntryRevisions) > 0 {
			return errors.New("protocol violated by the issuer: revisions among the entries")
		}
		addEntries(next, page.Entries, log)
		if !page.More {
			return nil
		}
	}
}

// addEntries leaves out what cannot be understood: the other entries still hold.
func addEntries(into map[string]registration.Entry, ps []*types.Entry, log *slog.Logger) {
	for _, p := range ps {
		e, err := registration.FromProto(p)
		if err == nil && (e.ID == "" || len(e.Selectors) == 0) {
			err = fmt.Errorf("it has no ID or no selectors")
		}
		if err != nil {
			log.Error("entry left out", "entry_id", p.GetId(), "reason", err)
			continue
		}
		into[e.ID] = e
	}
}
