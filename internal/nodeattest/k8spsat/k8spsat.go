// Package k8spsat owns the k8s_psat attestation, to the byte SPIRE's: the payload by which an agent shows the projected
// service account token of its pod, and what the facts that Kubernetes tells about that pod and its node make of it, an
// agent's SPIFFE ID and its selectors. It is pure: it reads no token from a file, asks no Kubernetes (issuer/enroll/k8spsat
// does) and decides nothing about who may join. A token is a secret: no error repeats one.
package k8spsat

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
)

// DefaultTokenFile is where agents read their token unless told otherwise; SPIRE's.
const DefaultTokenFile = "/var/run/secrets/tokens/spire-agent"

// DefaultAudience is whom the token must be meant for unless the issuer is told otherwise; SPIRE's.
const DefaultAudience = "spire-server"

const (
	// maxToken bounds a token in bytes; those of Kubernetes have about 1 KiB.
	maxToken = 32 << 10
	// maxCluster leaves room in a SPIFFE ID for the rest (2048 bytes: SPIFFE-ID, section 2.3).
	maxCluster = 1024
	// maxPayload bounds both with all that JSON may add.
	maxPayload = 64 << 10
)

// Payload is what an agent shows.
type Payload struct {
	// Cluster is the name under which the issuer knows the agent's cluster.
	Cluster string
	// Token is the projected service account token, a JWT. It was not verified.
	Token string
}

type payloadJSON struct {
	Cluster string `json:"cluster"`
	Token   string `json:"token"`
}

// Prove returns the payload that shows token, as read from its file, to the issuer.
func Prove(cluster, token string) ([]byte, error) {
	if err := CheckCluster(cluster); err != nil {
		return nil, err
	}
	token = strings.TrimSpace(token)
	switch {
	case token == "":
		return nil, errors.New("service account token is empty")
	case len(token) > maxToken:
		return nil, fmt.Errorf("service account token has %d bytes, at most %d", len(token), maxToken)
	case strings.Count(token, ".") != 2 || strings.ContainsFunc(token, isNotJWT):
		return nil, errors.New("service account token is not a JWT: name the file of a projected token")
	}
	return json.Marshal(payloadJSON{cluster, token})
}

// Parse returns what payload shows. Its errors are SPIRE's where SPIRE has them.
func Parse(payload []byte) (Payload, error) {
	if len(payload) > maxPayload {
		return Payload{}, fmt.Errorf("attestation payload has %d bytes, at most %d", len(payload), maxPayload)
	}
	var p payloadJSON
	if json.Unmarshal(payload, &p) != nil { // its errors may repeat what they find
		return Payload{}, errors.New("failed to unmarshal data payload")
	}
	switch {
	case p.Cluster == "":
		return Payload{}, errors.New("missing cluster in attestation data")
	case p.Token == "":
		return Payload{}, errors.New("missing token in attestation data")
	case len(p.Token) > maxToken:
		return Payload{}, fmt.Errorf("token has %d bytes, at most %d", len(p.Token), maxToken)
	case strings.Count(p.Token, ".") != 2 || strings.ContainsFunc(p.Token, isNotJWT):
		return Payload{}, errors.New("token in attestation data is not a JWT")
	}
	if err := CheckCluster(p.Cluster); err != nil {
		return Payload{}, err
	}
	return Payload(p), nil
}

// isNotJWT reports whether r is never in a JWT in its compact form (RFC 7515, section 7.1).
func isNotJWT(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
}

// CheckCluster reports why name can't be a cluster's: it becomes one or more path segments of agents' SPIFFE IDs.
func CheckCluster(name string) error {
	if name == "" {
		return errors.New("cluster name is empty")
	}
	if len(name) > maxCluster {
		return fmt.Errorf("cluster name has %d bytes, at most %d", len(name), maxCluster)
	}
	if spiffeid.ValidatePath("/"+name) != nil {
		return fmt.Errorf("cluster name %q: want letters, digits, '.', '_' and '-', as it is part of agents' SPIFFE IDs", name)
	}
	return nil
}

// Facts are what Kubernetes says of an agent whose token it takes for good.
type Facts struct {
	Cluster                   string
	Namespace, ServiceAccount string
	PodName, PodUID           string
	NodeName, NodeUID         string
	// HostIP is the node's address as the pod's status has it; may be "".
	HostIP string
	// NodeLabels and PodLabels are the labels that become selectors, not all there are.
	NodeLabels, PodLabels map[string]string
}

// AgentID returns the agent's SPIFFE ID: that of its node, or with byPod of its pod.
func (f Facts) AgentID(td spiffeid.TrustDomain, byPod bool) (spiffeid.ID, error) {
	if err := CheckCluster(f.Cluster); err != nil {
		return spiffeid.ID{}, err
	}
	kind, segments := "node", []string{f.NodeUID}
	if byPod {
		kind, segments = "pod", []string{"pod", f.PodUID}
	}
	uid := segments[len(segments)-1]
	if spiffeid.ValidatePathSegment(uid) != nil {
		return spiffeid.ID{}, fmt.Errorf("UID %q of the %s cannot be part of a SPIFFE ID", uid, kind)
	}
	return spiffeid.FromPath(td, "/"+path.Join(append([]string{"spire", "agent", nodeattest.K8sPSAT, f.Cluster}, segments...)...))
}
