package keep

import (
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
)

// State is what an agent knew at one moment. It is immutable.
type State struct {
	// Agent is whose it is.
	Agent spiffeid.ID
	Saved time.Time
	// Update has the entries and bundles; it is whole.
	Update upstream.Update
	SVIDs  []SVID
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
}
