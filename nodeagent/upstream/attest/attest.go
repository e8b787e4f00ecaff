// Package attest owns the methods by which a node agent proves to its issuer
// what its node is, with the files that they need: each is an upstream.Attestor.
// What the messages hold is known in internal/nodeattest.
package attest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
	"github.com/lanyard-mtls/lanyard/internal/nodeattest/k8spsat"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
)

// Token is where a join token comes from; the zero Token is none.
type Token struct {
	// Value is the token.
	Value string
	// File has it; it is read each time it is needed, and may be gone when it is
	// not needed any more.
	File string
}

// maxToken bounds a file with a token, in bytes.
const maxToken = 16 << 10

// Read returns the token, "" if there is none. The error never shows what is in
// the file.
func (t Token) Read() (string, error) {
	if t.Value != "" || t.File == "" {
		return t.Value, nil
	}
	f, err := os.Open(t.File)
	if err != nil {
		return "", fmt.Errorf("join token file %s: %w", t.File, errors.Unwrap(err))
	}
	defer f.Close()
	token, err := ReadToken(f)
	if err != nil {
		return "", fmt.Errorf("join token file %s: %w", t.File, err)
	}
	return token, nil
}

// ReadToken reads a token and the white space around it from r. The error never
// shows what is there.
func ReadToken(r io.Reader) (string, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxToken+1))
	if err != nil {
		if cause := errors.Unwrap(err); cause != nil {
			err = cause
		}
		return "", err
	}
	token := strings.TrimSpace(string(data))
	switch {
	case token == "":
		return "", errors.New("is empty")
	case len(data) > maxToken:
		return "", fmt.Errorf("has more than %d bytes: this is no token", maxToken)
	}
	return token, nil
}

// JoinToken shows a one-time token.
type JoinToken struct{ Token Token }

// Kind implements upstream.Attestor: a token is good once.
func (JoinToken) Kind() (string, bool) { return nodeattest.JoinToken, false }

// Check implements upstream.Attestor.
func (j JoinToken) Check() error {
	token, err := j.Token.Read()
	if err == nil && token == "" {
		return upstream.ErrNoIdentity
	}
	return err
}

// Begin implements upstream.Attestor.
func (j JoinToken) Begin(context.Context, upstream.Attempt) (upstream.Proof, error) {
	token, err := j.Token.Read()
	if err != nil {
		return upstream.Proof{}, err
	}
	if token == "" {
		return upstream.Proof{}, upstream.ErrNoIdentity
	}
	payload, err := nodeattest.ProveJoinToken(token)
	return upstream.Proof{Payload: payload, Token: upstream.Redacted(token)}, err
}

// K8sPSAT shows a projected service account token of Kubernetes.
type K8sPSAT struct {
	// Cluster is the name that the issuer knows the cluster by.
	Cluster string
	// TokenPath is the token's file; the kubelet replaces it as it ages.
	TokenPath string
}

// DefaultTokenPath is SPIRE's.
const DefaultTokenPath = "/var/run/secrets/tokens/spire-agent"

// Kind implements upstream.Attestor.
func (K8sPSAT) Kind() (string, bool) { return nodeattest.K8sPSAT, true }

// Check implements upstream.Attestor.
func (k K8sPSAT) Check() error {
	_, err := k.proof()
	return err
}

// Begin implements upstream.Attestor.
func (k K8sPSAT) Begin(context.Context, upstream.Attempt) (upstream.Proof, error) { return k.proof() }

func (k K8sPSAT) proof() (upstream.Proof, error) {
	f, err := os.Open(k.TokenPath)
	if err != nil {
		return upstream.Proof{}, fmt.Errorf("service account token %s: %w: mount a projected token there, or set token_path", k.TokenPath, errors.Unwrap(err))
	}
	defer f.Close()
	token, err := ReadToken(f)
	if err != nil {
		return upstream.Proof{}, fmt.Errorf("service account token %s: %w", k.TokenPath, err)
	}
	payload, err := k8spsat.Prove(k.Cluster, token)
	return upstream.Proof{Payload: payload}, err
}
