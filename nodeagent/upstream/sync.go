package upstream

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// syncer asks for the agent's entries, and knows of those that it was told before
// as much as tells whether they changed. It is used by one goroutine.
type syncer struct {
	reader entryReader
	known  map[string]*stamp // nil: it was told nothing yet
	round  uint64            // counts syncs
	// getAll is set where the issuer has no sync, or none is wanted.
	getAll bool
}

// stamp is what is remembered of an entry.
type stamp struct {
	revision, created int64
	sum               [sha256.Size]byte // of its encoding; only of lists that come whole
	federates         []spiffeid.TrustDomain
	left              bool   // left out, as it could not be read
	round             uint64 // when it was last there
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

// sync returns what became of the agent's entries since the last one that was kept.
func (s *syncer) sync(ctx context.Context, conn *grpc.ClientConn) (*synced, error) {
	client, ctx := entryv1.NewEntryClient(conn), withTemplates(ctx)
	if !s.getAll {
		got, err := s.syncOnce(ctx, client)
		if status.Code(err) != codes.Unimplemented {
			return got, err
		}
		s.getAll = true
	}
	resp, err := client.GetAuthorizedEntries(ctx, &entryv1.GetAuthorizedEntriesRequest{OutputMask: entryMask()})
	if err != nil {
		return nil, err
	}
	got := s.begin()
	if err := s.compareAll(got, resp.Entries); err != nil {
		return nil, err
	}
	return s.finish(got), nil
}

// syncOnce speaks SyncAuthorizedEntries: a short list comes whole; of a long one
// the revisions come in pages, and then what the agent asks for.
func (s *syncer) syncOnce(ctx context.Context, client entryv1.EntryClient) (*synced, error) {
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
	got := s.begin()
	if len(resp.EntryRevisions) == 0 {
		if err := s.compareAll(got, resp.Entries); err != nil {
			return nil, err
		}
		return s.finish(got), stream.CloseSend()
	}
	pageSize := len(resp.EntryRevisions)
	stale, err := s.compare(stream, resp)
	if err != nil {
		return nil, err
	}
	for ids := range slices.Chunk(stale, pageSize) {
		if err := s.fetch(stream, ids, got); err != nil {
			return nil, err
		}
	}
	return s.finish(got), stream.CloseSend()
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

// compare reads all pages of revisions and returns the IDs of the entries that are
// not known at these.
func (s *syncer) compare(stream syncStream, page *entryv1.SyncAuthorizedEntriesResponse) ([]string, error) {
	var stale []string
	for {
		if len(page.Entries) > 0 {
			return nil, errors.New("protocol violated by the issuer: entries among the revisions")
		}
		for _, rev := range page.EntryRevisions {
			known := s.known[rev.Id]
			if known != nil && known.revision == rev.RevisionNumber && (rev.CreatedAt == 0 || known.created == rev.CreatedAt) {
				known.round = s.round
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

func (s *syncer) fetch(stream syncStream, ids []string, got *synced) error {
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
		for _, p := range page.Entries {
			s.take(got, p, [sha256.Size]byte{})
		}
		if !page.More {
			return nil
		}
	}
}
