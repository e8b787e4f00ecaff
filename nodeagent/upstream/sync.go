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
	"google.golang.org/protobuf/proto"

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

// synced is what one sync has found: nothing of it is known before [syncer.keep].
type synced struct {
	change
	stamps map[string]*stamp // of what is new or changed
	gone   []string
}

func (s *syncer) begin() *synced {
	s.round++
	got := &synced{change: newChange(), stamps: make(map[string]*stamp)}
	got.whole = s.known == nil
	return got
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

// keep makes what was found what is known.
func (s *syncer) keep(got *synced) {
	if s.known == nil {
		s.known = make(map[string]*stamp, len(got.stamps))
	}
	for id, st := range got.stamps {
		s.known[id] = st
	}
	for _, id := range got.gone {
		delete(s.known, id)
	}
}

// forget has the next sync begin from nothing.
func (s *syncer) forget() { s.known = nil }

// federates returns the trust domains that the entries federate with, once got is
// kept.
func (s *syncer) federates(got *synced) map[spiffeid.TrustDomain]bool {
	all := make(map[spiffeid.TrustDomain]bool)
	add := func(st *stamp) {
		for _, td := range st.federates {
			if td != s.reader.td {
				all[td] = true
			}
		}
	}
	for id, st := range s.known {
		if got.stamps[id] == nil && st.round == s.round {
			add(st)
		}
	}
	for _, st := range got.stamps {
		add(st)
	}
	return all
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

// compareAll takes a list of all entries.
func (s *syncer) compareAll(got *synced, ps []*types.Entry) error {
	for _, p := range ps {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(p)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(b)
		if known := s.known[p.GetId()]; known != nil && known.sum == sum {
			known.round = s.round
			continue
		}
		s.take(got, p, sum)
	}
	return nil
}

// take takes an entry that is new or changed. What cannot be read is remembered as
// such, and not told of each time; what was held of it before is outdated.
func (s *syncer) take(got *synced, p *types.Entry, sum [sha256.Size]byte) {
	st := &stamp{revision: p.GetRevisionNumber(), created: p.GetCreatedAt(), sum: sum, round: s.round}
	got.stamps[p.GetId()] = st
	e, ok := s.reader.read(p)
	if !ok {
		st.left = true
		if p.GetId() != "" {
			got.remove(p.GetId())
		}
		return
	}
	st.federates = e.FederatesWith
	got.put(e)
}

// finish finds what is not there any more.
func (s *syncer) finish(got *synced) *synced {
	for id, st := range s.known {
		if _, anew := got.stamps[id]; !anew && st.round != s.round {
			got.gone = append(got.gone, id)
			if !st.left {
				got.remove(id)
			}
		}
	}
	return got
}
