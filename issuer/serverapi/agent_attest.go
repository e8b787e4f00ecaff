package serverapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/issuer/ca"
	"github.com/lanyard-mtls/lanyard/issuer/enroll"
)

// Bounds on what a stranger who joins can keep busy.
const (
	// attestTime is how long the first message may take, and then all the rest.
	attestTime = 30 * time.Second
	// attestRounds are challenges; known methods need one.
	attestRounds = 8
	// attestBytes are of the payload and all responses: a chain of the largest
	// certificates that x509pop takes, several times.
	attestBytes = 256 << 10
	// maxAttestationType bounds, in bytes, what goes into the log.
	maxAttestationType = 64
)

// AttestAgent admits an agent: its parameters, any challenges of the method and
// their answers, then its SVID.
func (s *AgentService) AttestAgent(stream agentv1.Agent_AttestAgentServer) error {
	ctx := stream.Context()
	limits := limitsOf(ctx)
	if err := limits.join(ctx, ""); err != nil {
		return err
	}
	talk := &conversation{stream: stream}
	req, err := talk.receive(ctx)
	if err != nil {
		return statusError(codes.InvalidArgument, "failed to receive request from stream", err)
	}
	params := req.GetParams()
	if err := checkAttestParams(params); err != nil {
		return statusError(codes.InvalidArgument, "malformed param", err)
	}
	method, payload := params.GetData().GetType(), params.GetData().GetPayload()
	annotate(ctx, slog.String("attestation", method))
	start := time.Now()
	if err := limits.join(ctx, enroll.RateKey(method, payload)); err != nil {
		return err
	}
	if held := time.Since(start); held >= time.Millisecond {
		annotate(ctx, slog.Duration("held_by_limit", held))
	}
	admission, err := s.admit(ctx, talk, enroll.Attempt{
		Method: method, Payload: payload, CSR: params.GetParams().GetCsr(),
		Challenge: talk.challenge, Peer: peerAddr(ctx), Exporter: exporter(ctx),
	})
	s.tell(method, err)
	if err != nil {
		return err
	}
	annotate(ctx, svidAttrs(admission.ID, admission.SVID)...)
	return stream.Send(&agentv1.AttestAgentResponse{Step: &agentv1.AttestAgentResponse_Result_{
		Result: &agentv1.AttestAgentResponse_Result{
			Svid:         svidProto(admission.ID, admission.SVID),
			Reattestable: admission.Reattestable,
		},
	}})
}

// tell counts an attempt to join.
func (s *AgentService) tell(method string, err error) {
	if s.deps.Joins == nil {
		return
	}
	outcome := "ok"
	if err != nil {
		outcome = status.Code(err).String()
	}
	s.deps.Joins(method, outcome)
}

func (s *AgentService) admit(ctx context.Context, talk *conversation, attempt enroll.Attempt) (enroll.Admission, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, attestTime, errSlow)
	defer cancel()
	talk.bytes = len(attempt.Payload)
	admission, err := s.deps.Enroll.Attest(ctx, attempt)
	switch {
	case err == nil:
		return admission, nil
	case talk.failed != nil: // the method's error is what became of it
		return admission, talk.failed
	default:
		return admission, attestError(err)
	}
}

var errSlow = status.Errorf(codes.DeadlineExceeded, "attestation takes longer than %s", attestTime)

// conversation is what passes between the issuer and an agent that joins.
type conversation struct {
	stream agentv1.Agent_AttestAgentServer
	rounds int
	bytes  int
	// failed is the status that ended it, nil if none did.
	failed error
}

// receive waits for the agent's next message, until ctx is done and no longer
// than attestTime.
func (c *conversation) receive(ctx context.Context) (*agentv1.AttestAgentRequest, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, attestTime, errSlow)
	defer cancel()
	type message struct {
		req *agentv1.AttestAgentRequest
		err error
	}
	// A stream's Recv ends with the stream alone, which ends when the method
	// returns: so does this goroutine, which nobody waits for.
	got := make(chan message, 1)
	go func() {
		req, err := c.stream.Recv()
		got <- message{req, err}
	}()
	select {
	case m := <-got:
		return m.req, m.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// challenge is [enroll.Attempt]'s.
func (c *conversation) challenge(ctx context.Context, challenge []byte) ([]byte, error) {
	response, err := c.ask(ctx, challenge)
	if err != nil {
		c.failed = err
	}
	return response, err
}

func (c *conversation) ask(ctx context.Context, challenge []byte) ([]byte, error) {
	if c.rounds++; c.rounds > attestRounds {
		return nil, status.Errorf(codes.ResourceExhausted, "attestation takes more than %d challenges", attestRounds)
	}
	err := c.stream.Send(&agentv1.AttestAgentResponse{Step: &agentv1.AttestAgentResponse_Challenge{Challenge: challenge}})
	if err != nil {
		return nil, statusError(codes.Internal, "failed to send challenge to agent", err)
	}
	req, err := c.receive(ctx)
	if err != nil {
		return nil, statusError(codes.Internal, "failed to receive challenge from agent", err)
	}
	step, ok := req.GetStep().(*agentv1.AttestAgentRequest_ChallengeResponse)
	if !ok {
		return nil, status.Error(codes.InvalidArgument, "malformed param: missing challenge response")
	}
	if c.bytes += len(step.ChallengeResponse); c.bytes > attestBytes {
		return nil, errTooLarge
	}
	return step.ChallengeResponse, nil
}

var errTooLarge = status.Errorf(codes.InvalidArgument, "malformed param: attestation data is larger than %d bytes", attestBytes)

// exporter is of the caller's TLS connection; nil on the admin socket.
func exporter(ctx context.Context) enroll.Exporter {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	info, ok := p.AuthInfo.(*connInfo)
	if !ok {
		return nil
	}
	return info.export
}

func checkAttestParams(params *agentv1.AttestAgentRequest_Params) error {
	switch {
	case params == nil:
		return errors.New("missing params")
	case params.GetData() == nil:
		return errors.New("missing attestation data")
	case params.GetParams() == nil:
		return errors.New("missing X509-SVID parameters")
	case len(params.GetParams().GetCsr()) == 0:
		return errors.New("missing CSR")
	case params.GetData().GetType() == "":
		return errors.New("missing attestation data type")
	case len(params.GetData().GetType()) > maxAttestationType:
		return errors.New("attestation data type is too long")
	case len(params.GetData().GetPayload()) == 0:
		return errors.New("missing attestation data payload")
	case len(params.GetData().GetPayload()) > attestBytes:
		return fmt.Errorf("attestation data is larger than %d bytes", attestBytes)
	}
	return nil
}

func attestError(err error) error {
	switch {
	case errors.Is(err, enroll.ErrUnknownMethod):
		return status.Error(codes.FailedPrecondition, err.Error())
	case errors.Is(err, ca.ErrCSRMalformed), errors.Is(err, ca.ErrCSRSignature):
		return agentCSRError(err)
	case errors.Is(err, enroll.ErrTokenSpent), errors.Is(err, enroll.ErrTokenExpired), errors.Is(err, enroll.ErrMalformed):
		return status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, enroll.ErrBanned), errors.Is(err, enroll.ErrRefused), errors.Is(err, enroll.ErrTokenPlace),
		errors.Is(err, enroll.ErrUsed), errors.Is(err, enroll.ErrKeyUnknown):
		return status.Error(codes.PermissionDenied, err.Error())
	case errors.Is(err, ca.ErrNotReady):
		return status.Error(codes.Unavailable, err.Error())
	}
	return statusError(codes.Internal, "failed to attest", err)
}

func agentCSRError(err error) error {
	return csrError(err, "failed to parse CSR", "failed to verify CSR signature")
}
