package upstream

import (
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// newTokenMend says how an agent gets a token of join_token.
const newTokenMend = "make a new one at the issuer (token generate) and start the agent with it (-joinToken)"

// NewKeyTokenMend says how an agent gets a token of join_key.
const NewKeyTokenMend = "make a new one at the issuer (token create -method join_key) and start the agent with it (-joinTokenFile)"

// RefusedError says that the issuer does not accept this agent any more.
type RefusedError struct {
	ID     spiffeid.ID
	Reason types.PermissionDeniedDetails_Reason
	// again says that the agent can join without a person's help.
	again bool
}

func (e *RefusedError) Error() string {
	const rejoin = "; its SVID was deleted: get a new join token at the issuer (token generate) and start the agent with it (-joinToken)"
	switch e.Reason {
	case types.PermissionDeniedDetails_AGENT_BANNED:
		return fmt.Sprintf("the issuer has banned agent %s; its SVID was deleted: to let it in again, evict it at the issuer (agent evict) and start it anew, with a new token if it joins by token", e.ID)
	case types.PermissionDeniedDetails_AGENT_EXPIRED:
		return fmt.Sprintf("the SVID of agent %s expired before it could be renewed: compare the clocks of this machine and the issuer, or %s", e.ID, newTokenMend)
	case types.PermissionDeniedDetails_AGENT_NOT_ATTESTED:
		return fmt.Sprintf("the issuer does not know agent %s (evicted, or the issuer's data are new)%s", e.ID, rejoin)
	case types.PermissionDeniedDetails_AGENT_NOT_ACTIVE:
		return fmt.Sprintf("the issuer has given a newer SVID to agent %s than the one on this disk (was the data directory copied or restored, or could it not be written?)%s", e.ID, rejoin)
	default:
		return fmt.Sprintf("the issuer refuses agent %s (%s)%s", e.ID, e.Reason, rejoin)
	}
}

// denialReason returns the reason that a PermissionDenied status carries. Only
// those that say something about the agent itself count.
func denialReason(err error) (types.PermissionDeniedDetails_Reason, bool) {
	st, ok := status.FromError(err)
	if !ok || st.Code() != codes.PermissionDenied {
		return 0, false
	}
	for _, detail := range st.Details() {
		if d, ok := detail.(*types.PermissionDeniedDetails); ok && d.Reason != types.PermissionDeniedDetails_UNKNOWN {
			return d.Reason, true
		}
	}
	return 0, false
}

// fatalError ends the attempts to join.
type fatalError struct{ error }

func (e fatalError) Unwrap() error { return e.error }

func fatal(format string, args ...any) error { return fatalError{fmt.Errorf(format, args...)} }

func isFatal(err error) bool {
	_, ok := errors.AsType[fatalError](err)
	return ok
}
