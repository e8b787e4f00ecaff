// Package nodeattest owns the payloads of node attestation: the half that
// proves, which the agent calls, and the half that verifies, which the issuer
// calls, side by side because they are tested against each other. It is pure:
// it opens no connection, keeps no token and decides nothing about who may join.
package nodeattest

import (
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// The types of attestation.
const (
	// JoinToken shows a one-time token.
	JoinToken = "join_token"
	// JoinKey proves a key of the node's own, bound once by a token (package
	// joinkey). SPIRE has it not.
	JoinKey = "join_key"
	// X509POP proves the key of a certificate (package x509pop).
	X509POP = "x509pop"
	// K8sPSAT shows a projected service account token of Kubernetes.
	K8sPSAT = "k8s_psat"
)

// Messages of the statuses that AttestAgent ends with, word for word SPIRE's:
// agents and people's scripts look for them.
const (
	// TokenSpent comes with InvalidArgument.
	TokenSpent = "failed to attest: join token does not exist or has already been used"
	// TokenExpired comes with InvalidArgument.
	TokenExpired = "join token expired"
	// AgentBanned comes with PermissionDenied.
	AgentBanned = "failed to attest: agent is banned"
	// MethodMissing begins the message that comes with FailedPrecondition.
	MethodMissing = "error getting node attestor"
	// AlreadyUsed comes with PermissionDenied, of a method whose evidence
	// admits one agent once.
	AlreadyUsed = "attestation data has already been used to attest an agent"
	// KeyUnknown comes with PermissionDenied; it is our own, of join_key.
	KeyUnknown = "the node's key is not known: a join token is needed"
)

// maxTokenLength is what fits a path segment of a SPIFFE ID comfortably (the
// whole ID may have 2048 bytes: SPIFFE-ID, section 2.3).
const maxTokenLength = 255

// ProveJoinToken returns the payload that shows token to the issuer.
func ProveJoinToken(token string) ([]byte, error) {
	if err := CheckJoinToken(token); err != nil {
		return nil, err
	}
	return []byte(token), nil
}

// ParseJoinToken returns the token that payload shows. The error does not
// repeat it.
func ParseJoinToken(payload []byte) (string, error) {
	if len(payload) > maxTokenLength {
		return "", fmt.Errorf("join token has %d characters, at most %d", len(payload), maxTokenLength)
	}
	token := string(payload)
	return token, CheckJoinToken(token)
}

// CheckJoinToken reports why token cannot be one: it becomes a path segment of
// the agent's SPIFFE ID, so it has letters, digits, '.', '_' and '-' only. The
// error does not repeat it.
func CheckJoinToken(token string) error {
	if token == "" {
		return fmt.Errorf("join token is empty")
	}
	if len(token) > maxTokenLength {
		return fmt.Errorf("join token has %d characters, at most %d", len(token), maxTokenLength)
	}
	if spiffeid.ValidatePathSegment(token) != nil {
		return fmt.Errorf("join token must be letters, digits, '.', '_' and '-', and not only dots")
	}
	return nil
}

// JoinTokenAgentID returns the SPIFFE ID of the agent that joined td with token.
func JoinTokenAgentID(td spiffeid.TrustDomain, token string) (spiffeid.ID, error) {
	if err := CheckJoinToken(token); err != nil {
		return spiffeid.ID{}, err
	}
	return spiffeid.FromSegments(td, "spire", "agent", JoinToken, token)
}

// IsAgentID reports whether id is in the part of td that belongs to agents.
func IsAgentID(td spiffeid.TrustDomain, id spiffeid.ID) bool {
	const prefix = "/spire/agent/"
	path := id.Path()
	return id.MemberOf(td) && len(path) > len(prefix) && path[:len(prefix)] == prefix
}
