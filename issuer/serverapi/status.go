package serverapi

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/ca"
)

// statusError is the error of a method: "msg: cause" or, of NotFound, msg alone,
// as SPIRE words them. A cause that is the end of the caller's own context is
// told as that, whatever code says; of one that is a status, the message counts.
func statusError(code codes.Code, msg string, cause error) error {
	if cause == nil {
		return status.Error(code, msg)
	}
	text := cause.Error()
	ended := codes.OK
	if st, ok := status.FromError(cause); ok {
		text, ended = st.Message(), st.Code()
	}
	switch {
	case errors.Is(cause, context.Canceled), ended == codes.Canceled:
		code = codes.Canceled
	case errors.Is(cause, context.DeadlineExceeded), ended == codes.DeadlineExceeded:
		code = codes.DeadlineExceeded
	case code == codes.NotFound:
		return status.Error(code, msg)
	}
	return status.Error(code, msg+": "+text)
}

// itemStatus is [statusError] for one result of a batch.
func itemStatus(code codes.Code, msg string, cause error) *types.Status {
	st := status.Convert(statusError(code, msg, cause))
	return &types.Status{Code: int32(st.Code()), Message: st.Message()}
}

// itemOK is the status of a result that is fine; clients dereference it.
func itemOK() *types.Status {
	return &types.Status{Code: int32(codes.OK), Message: codes.OK.String()}
}

// csrError is the error of a CSR: SPIRE words it in as many ways as it has
// methods.
func csrError(err error, malformed, forged string) error {
	text := err.Error()
	for _, known := range []struct {
		err  error
		text string
	}{{ca.ErrCSRMalformed, malformed}, {ca.ErrCSRSignature, forged}} {
		if rest, ok := strings.CutPrefix(text, known.err.Error()); ok && errors.Is(err, known.err) {
			text = known.text + rest
		}
	}
	return status.Error(codes.InvalidArgument, text)
}

// denied is a PermissionDenied that tells an agent why, so that it knows
// whether to join again, renew or give up.
func denied(reason types.PermissionDeniedDetails_Reason, msg string) error {
	st := status.New(codes.PermissionDenied, msg)
	if reason == types.PermissionDeniedDetails_UNKNOWN {
		return st.Err()
	}
	detailed, err := st.WithDetails(&types.PermissionDeniedDetails{Reason: reason})
	if err != nil {
		return st.Err()
	}
	return detailed.Err()
}
