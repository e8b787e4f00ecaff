package keep

import (
	"crypto/x509"
	"iter"
	"log/slog"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/nodeagent/jwtsvid"
)

// State is what an agent knew at one moment. It is immutable.
type State struct {
	// Agent is whose it is.
	Agent spiffeid.ID
	Saved time.Time
	// Entries are all that the agent had. They can be gone through once and
	// again; there may be 100,000, which nobody needs at once.
	Entries iter.Seq[registration.Entry]
	// Bundle is the own trust domain's, Federated and JWT are as in
	// upstream.Update, Tainted are authorities in Bundle.
	Bundle    *x509bundle.Bundle
	Federated map[spiffeid.TrustDomain]*x509bundle.Bundle
	JWT       map[spiffeid.TrustDomain]*jwtsvid.Bundle
	Tainted   []*x509.Certificate
	SVIDs     []SVID
}

// SVID is an X.509-SVID with its key. It is secret.
type SVID struct {
	// EntryID is of the entry, or instance of a template, that it was signed for.
	EntryID string
	// Chain is DER, concatenated, leaf first.
	Chain []byte
	// Key is PKCS #8.
	Key []byte
	// RotateAt is when it is to be renewed.
	RotateAt time.Time
	// NotAfter is when the first of the chain ends.
	NotAfter time.Time
}

// LogValue keeps the key out of logs, and String out of texts.
func (s SVID) LogValue() slog.Value { return slog.StringValue(s.String()) }

func (s SVID) String() string { return "SVID of entry " + s.EntryID }
