package upstream

import (
	"context"
	"crypto/x509"
	"fmt"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/svidv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// maxBatch is how many CSRs go into one call (SPIRE's limit of a call's answer
// and of the issuer's rate).
const maxBatch = 500

// CSR asks for one X.509-SVID.
type CSR struct {
	EntryID string
	DER     []byte // PKCS #10
}

// Signed is the answer to a [CSR]: a chain, leaf first, or the issuer's reason.
type Signed struct {
	Chain []*x509.Certificate
	Err   error
}

// batchSize is how many CSRs a call carries now: half as many after one that was
// too much, twice as many after one that worked.
type batchSize struct{ limit atomic.Int64 }

func (b *batchSize) get() int {
	if n := b.limit.Load(); n > 0 {
		return int(n)
	}
	return maxBatch
}

func (b *batchSize) halve(failed int) { b.limit.Store(int64(max(1, failed/2))) }

func (b *batchSize) grow() { b.limit.Store(int64(min(maxBatch, 2*b.get()))) }

// SignX509SVIDs has SVIDs signed (spire.api.server.svid.v1, BatchNewX509SVID).
// Answers are in the order of reqs and as many. The error says that no more than
// the answers returned so far could be had.
func (c *Client) SignX509SVIDs(ctx context.Context, reqs []CSR) ([]Signed, error) {
	signed := make([]Signed, 0, len(reqs))
	for len(signed) < len(reqs) {
		rest := reqs[len(signed):]
		batch := rest[:min(len(rest), c.batch.get())]
		answers, err := c.signBatch(ctx, batch)
		switch {
		case err == nil:
			c.batch.grow()
			signed = append(signed, answers...)
		case tooMuch(err) && len(batch) > 1:
			c.batch.halve(len(batch))
		case status.Code(err) == codes.DeadlineExceeded:
			c.batch.halve(len(batch))
			return signed, err
		default:
			return signed, err
		}
	}
	return signed, nil
}

// tooMuch reports whether fewer CSRs could do better.
func tooMuch(err error) bool {
	switch status.Code(err) {
	case codes.ResourceExhausted, codes.InvalidArgument, codes.Internal, codes.Unknown:
		return true
	default:
		return false
	}
}

func (c *Client) signBatch(ctx context.Context, reqs []CSR) ([]Signed, error) {
	params := make([]*svidv1.NewX509SVIDParams, len(reqs))
	for i, r := range reqs {
		params[i] = &svidv1.NewX509SVIDParams{EntryId: r.EntryID, Csr: r.DER}
	}
	var resp *svidv1.BatchNewX509SVIDResponse
	err := c.agentCall(ctx, func(ctx context.Context, conn *grpc.ClientConn) (err error) {
		resp, err = svidv1.NewSVIDClient(conn).BatchNewX509SVID(ctx, &svidv1.BatchNewX509SVIDRequest{Params: params})
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(resp.Results) != len(reqs) {
		return nil, status.Errorf(codes.DataLoss, "the issuer answered %d of %d signing requests", len(resp.Results), len(reqs))
	}
	signed := make([]Signed, len(reqs))
	for i, result := range resp.Results {
		signed[i] = readResult(result.GetStatus(), result.GetSvid())
	}
	return signed, nil
}

func readResult(st *types.Status, svid *types.X509SVID) Signed {
	if code := codes.Code(st.GetCode()); code != codes.OK {
		return Signed{Err: status.Error(code, st.GetMessage())}
	}
	chain, err := parseChain(svid.GetCertChain())
	if err != nil {
		return Signed{Err: fmt.Errorf("the issuer's answer: %w", err)}
	}
	return Signed{Chain: chain}
}
