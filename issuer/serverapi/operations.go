package serverapi

import (
	"bufio"
	"context"
	"log/slog"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/operationsv1"
)

// OperationsService is lanyard.issuer.v1.Operations: what operators do here that
// SPIRE's API has no call for.
type OperationsService struct {
	operationsv1.UnsafeOperationsServer
	deps Deps
}

// NewOperationsService returns the service.
func NewOperationsService(d Deps) *OperationsService {
	d.setDefaults()
	return &OperationsService{deps: d}
}

// maxWaiting bounds the agents that GetCAPlan names.
const maxWaiting = 100

// GetCAPlan says what will happen to the authorities, and when.
func (s *OperationsService) GetCAPlan(context.Context, *operationsv1.GetCAPlanRequest) (*operationsv1.GetCAPlanResponse, error) {
	plan := s.deps.CA.Plan()
	resp := &operationsv1.GetCAPlanResponse{}
	for _, a := range plan.Authorities {
		resp.Authorities = append(resp.Authorities, &operationsv1.GetCAPlanResponse_Authority{
			Kind: a.Kind, AuthorityId: a.ID, Status: a.Status, IssuedAt: a.IssuedAt.Unix(), ExpiresAt: a.ExpiresAt.Unix(),
			Tainted: a.Tainted, UpstreamAuthorityId: a.UpstreamAuthorityID,
		})
	}
	for _, e := range plan.Events {
		resp.Events = append(resp.Events, &operationsv1.GetCAPlanResponse_Event{
			At: e.At.Unix(), Kind: e.Kind, Action: e.Action, AuthorityId: e.AuthorityID, Note: e.Note,
		})
	}
	for _, id := range plan.WaitingFor[:min(len(plan.WaitingFor), maxWaiting)] {
		resp.WaitingFor = append(resp.WaitingFor, id.String())
	}
	return resp, nil
}

// backupChunk is how much of a backup one message has, in bytes.
const backupChunk = 256 << 10

// Backup streams a consistent copy of the records and the private keys.
func (s *OperationsService) Backup(_ *operationsv1.BackupRequest, stream operationsv1.Operations_BackupServer) error {
	if s.deps.Backup == nil {
		return unimplemented("taking a backup")
	}
	out := &chunks{stream: stream}
	buffered := bufio.NewWriterSize(out, backupChunk)
	err := s.deps.Backup(stream.Context(), buffered)
	if err == nil {
		err = buffered.Flush()
	}
	annotate(stream.Context(), slog.Int64("bytes", out.sent))
	if err != nil {
		return statusError(codes.Internal, "failed to take a backup", err)
	}
	return nil
}

// chunks is an io.Writer that sends what is written, in messages.
type chunks struct {
	stream operationsv1.Operations_BackupServer
	sent   int64
}

func (c *chunks) Write(p []byte) (int, error) {
	written := 0
	for piece := range slices.Chunk(p, backupChunk) {
		if err := c.stream.Send(&operationsv1.BackupResponse{Chunk: slices.Clone(piece)}); err != nil {
			return written, err
		}
		written += len(piece)
		c.sent += int64(len(piece))
	}
	return written, nil
}

// RevokeToken ends a token; agents that joined with it stay.
func (s *OperationsService) RevokeToken(ctx context.Context, req *operationsv1.RevokeTokenRequest) (*emptypb.Empty, error) {
	if req.GetId() == "" {
		return nil, statusError(codes.InvalidArgument, "missing token ID", nil)
	}
	annotate(ctx, slog.String("token_id", clip(req.GetId())))
	if err := s.deps.Enroll.RevokeToken(ctx, req.GetId()); err != nil {
		return nil, tokenError("failed to revoke token", err)
	}
	return &emptypb.Empty{}, nil
}

// seconds makes a duration of a number of seconds that a client sent, which may
// be more than there are.
func seconds(n int64) time.Duration {
	const most = int64(1<<63-1) / int64(time.Second)
	return time.Duration(min(max(n, -most), most)) * time.Second
}
