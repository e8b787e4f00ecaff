package serverapi

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/changesv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/operationsv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/trustdomainv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// maxLoggedText bounds, in bytes, an error in the log: those about a stranger's
// certificate or CSR repeat parts of it, more than once and in quotes.
const maxLoggedText = 1 << 10

func clip(text string) string {
	if len(text) <= maxLoggedText {
		return text
	}
	return strings.ToValidUTF8(text[:maxLoggedText], "") + "..."
}

// maxLoggedNames bounds how many parts of a batch one line of the log names.
const maxLoggedNames = 20

// outcome is what became of one part of a batch.
type outcome struct {
	// name is the part's: an entry's ID, a trust domain, an agent's SPIFFE ID.
	name   string
	status *types.Status
	// Of an SVID that was signed.
	spiffeID, serial string
}

func (o outcome) ok() bool { return codes.Code(o.status.GetCode()) == codes.OK }

func (o outcome) String() string {
	if o.serial == "" {
		return o.name
	}
	return o.name + " " + o.spiffeID + " " + o.serial
}

// result is one of a batch response.
type result interface{ GetStatus() *types.Status }

func outcomes[R result](results []R, name func(R) string) []outcome {
	list := make([]outcome, 0, len(results))
	for _, r := range results {
		list = append(list, outcome{name: name(r), status: r.GetStatus()})
	}
	return list
}

// outcomesOf reads the outcomes off the response of a batch that changes.
func outcomesOf(resp any) []outcome {
	switch resp := resp.(type) {
	case *entryv1.BatchCreateEntryResponse:
		return outcomes(resp.GetResults(), func(r *entryv1.BatchCreateEntryResponse_Result) string { return r.GetEntry().GetId() })
	case *entryv1.BatchUpdateEntryResponse:
		return outcomes(resp.GetResults(), func(r *entryv1.BatchUpdateEntryResponse_Result) string { return r.GetEntry().GetId() })
	case *entryv1.BatchDeleteEntryResponse:
		return outcomes(resp.GetResults(), (*entryv1.BatchDeleteEntryResponse_Result).GetId)
	case *bundlev1.BatchCreateFederatedBundleResponse:
		return outcomes(resp.GetResults(), func(r *bundlev1.BatchCreateFederatedBundleResponse_Result) string {
			return r.GetBundle().GetTrustDomain()
		})
	case *bundlev1.BatchUpdateFederatedBundleResponse:
		return outcomes(resp.GetResults(), func(r *bundlev1.BatchUpdateFederatedBundleResponse_Result) string {
			return r.GetBundle().GetTrustDomain()
		})
	case *bundlev1.BatchSetFederatedBundleResponse:
		return outcomes(resp.GetResults(), func(r *bundlev1.BatchSetFederatedBundleResponse_Result) string {
			return r.GetBundle().GetTrustDomain()
		})
	case *bundlev1.BatchDeleteFederatedBundleResponse:
		return outcomes(resp.GetResults(), (*bundlev1.BatchDeleteFederatedBundleResponse_Result).GetTrustDomain)
	case *trustdomainv1.BatchCreateFederationRelationshipResponse:
		return outcomes(resp.GetResults(), func(r *trustdomainv1.BatchCreateFederationRelationshipResponse_Result) string {
			return r.GetFederationRelationship().GetTrustDomain()
		})
	case *trustdomainv1.BatchUpdateFederationRelationshipResponse:
		return outcomes(resp.GetResults(), func(r *trustdomainv1.BatchUpdateFederationRelationshipResponse_Result) string {
			return r.GetFederationRelationship().GetTrustDomain()
		})
	case *trustdomainv1.BatchDeleteFederationRelationshipResponse:
		return outcomes(resp.GetResults(), (*trustdomainv1.BatchDeleteFederationRelationshipResponse_Result).GetTrustDomain)
	case *operationsv1.ImportAgentsResponse:
		return outcomes(resp.GetResults(), func(r *operationsv1.ImportAgentsResponse_Result) string {
			return "spiffe://" + r.GetId().GetTrustDomain() + r.GetId().GetPath()
		})
	}
	return nil
}

// limitOf names the limit that refuses calls of a method.
func limitOf(method string) string {
	switch method {
	case agentv1.Agent_AttestAgent_FullMethodName:
		return "attestation"
	case changesv1.Changes_Watch_FullMethodName:
		return "watching"
	}
	return "signing"
}

// end tells of the call, in the log and the metrics, and returns its error.
func (c *call) end(ctx context.Context, err error) error {
	deps := &c.gate.deps
	st := status.Convert(err)
	took := deps.Now().Sub(c.start)
	if deps.Calls != nil {
		deps.Calls(c.method, st.Code().String(), took)
	}
	if deps.RateLimited != nil && st.Code() == codes.ResourceExhausted {
		deps.RateLimited(limitOf(c.method))
	}
	level := c.level(st.Code())
	if !deps.Log.Enabled(ctx, level) {
		return err
	}
	attrs := append(c.who(ctx), slog.String("code", st.Code().String()), slog.Duration("took", took), slog.Uint64("call", c.number))
	attrs = append(attrs, c.attrs...)
	attrs = append(attrs, c.batch()...)
	if err != nil {
		attrs = append(attrs, slog.String("error", clip(st.Message())))
		for _, detail := range st.Details() {
			if d, ok := detail.(*types.PermissionDeniedDetails); ok {
				attrs = append(attrs, slog.String("reason", d.GetReason().String()))
			}
		}
	}
	deps.Log.LogAttrs(ctx, level, "call", attrs...)
	if deps.Audit {
		c.each(ctx)
	}
	return err
}

// level says how the log takes a call that ended with code.
func (c *call) level(code codes.Code) slog.Level {
	switch {
	case c.expected:
		return slog.LevelDebug
	case code == codes.PermissionDenied, code == codes.Unauthenticated:
		return slog.LevelWarn
	case code == codes.Internal, code == codes.Unknown, code == codes.DataLoss:
		return slog.LevelError
	case rules[c.method].effect == reads && !c.gate.deps.Audit:
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// who says what is known of the caller.
func (c *call) who(ctx context.Context) []slog.Attr {
	attrs := append(make([]slog.Attr, 0, 20), slog.String("method", c.method), slog.String("caller", c.caller.String()))
	p, ok := peer.FromContext(ctx)
	if !ok {
		return attrs
	}
	if info, ok := p.AuthInfo.(localInfo); ok {
		return append(attrs, info.attrs()...)
	}
	return append(attrs, slog.String("address", p.Addr.String()))
}

// batch sums the outcomes up.
func (c *call) batch() []slog.Attr {
	if c.outcomes == nil {
		return nil
	}
	var names, refused []string
	done, failed := 0, 0
	for i, o := range c.outcomes {
		if o.ok() {
			if done++; done <= maxLoggedNames {
				names = append(names, o.String())
			}
			continue
		}
		if failed++; failed <= maxLoggedNames {
			refused = append(refused, o.refusal(i))
		}
	}
	attrs := []slog.Attr{slog.Int("done", done), slog.Int("failed", failed), slog.Any("items", names)}
	if failed > 0 {
		attrs = append(attrs, slog.Any("refused", refused))
	}
	return attrs
}

// refusal says which item of a batch was refused, the i-th if it has no name, and why.
func (o outcome) refusal(i int) string {
	const most = 200 // bytes; there may be many
	why := strings.ToValidUTF8(o.status.GetMessage(), "")
	if len(why) > most {
		why = strings.ToValidUTF8(why[:most], "") + "..."
	}
	return fmt.Sprintf("%s: %s", cmp.Or(o.String(), "#"+strconv.Itoa(i)), why)
}

// each has a line for each outcome.
func (c *call) each(ctx context.Context) {
	for i, o := range c.outcomes {
		attrs := []slog.Attr{
			slog.Uint64("call", c.number), slog.Int("item", i), slog.String("name", clip(o.name)),
			slog.String("code", codes.Code(o.status.GetCode()).String()),
		}
		if o.serial != "" {
			attrs = append(attrs, slog.String("spiffe_id", o.spiffeID), slog.String("serial", o.serial))
		}
		if !o.ok() {
			attrs = append(attrs, slog.String("error", clip(o.status.GetMessage())))
		}
		c.gate.deps.Log.LogAttrs(ctx, slog.LevelInfo, "item of a call", attrs...)
	}
}
