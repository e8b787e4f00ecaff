package store

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

// The layout of the keys, version 1. A change to any of it needs another
// version and a way over.
const (
	root = "lanyard/1/"

	domainKey   = root + "trust-domain"
	bundleKey   = root + "bundle"
	entryDir    = root + "entry/"    // + entry ID: types.Entry
	uniqueDir   = root + "unique/"   // + Entry.Key(): entry ID
	aliasDir    = root + "alias/"    // + agent ID + "#" + entry ID: nothing
	agentDir    = root + "agent/"    // + agent ID: storepb.Agent
	templateDir = root + "template/" // + path of the template + "#" + entry ID: nothing
	// federatedDir and relationshipDir have the name of the trust domain behind them.
	federatedDir    = root + "federated/"    // types.Bundle
	relationshipDir = root + "relationship/" // types.FederationRelationship without its bundle
	restoredKey     = root + "restored"      // Unix seconds, decimal: the mark of a restore
	tokenDir        = root + "token/"        // + hex(SHA-256(token)): storepb.JoinToken
	// authorityDir is of the one issuer there is; each further one has its own.
	authorityDir = root + "authority/1/" // + authority ID: storepb.X509Authority
)

const joinTokenAgents = "/spire/agent/join_token/"

func entryKey(id string) string             { return entryDir + id }
func agentKey(id spiffeid.ID) string        { return agentDir + id.String() }
func authorityKey(id string) string         { return authorityDir + id }
func uniqueKey(e registration.Entry) string { return uniqueDir + e.Key() }
func aliasesOf(agent spiffeid.ID) string    { return aliasDir + agent.String() + "#" }

// tokenKey hides the token: a copy of the store gives nobody a way to join.
func tokenKey(token string) string {
	sum := sha256.Sum256([]byte(token))
	return tokenDir + hex.EncodeToString(sum[:])
}

// tokenOf returns the join token that an agent ID was made from.
func tokenOf(agent spiffeid.ID) (string, bool) {
	return strings.CutPrefix(agent.Path(), joinTokenAgents)
}

// derivedKeys returns the keys that stand and fall with e, and their values.
func derivedKeys(e registration.Entry) map[string]string {
	keys := map[string]string{uniqueKey(e): e.ID}
	if isAgentAlias(e) {
		keys[aliasesOf(e.ParentID)+e.ID] = ""
	}
	if !e.Template.IsZero() {
		keys[templateKey(e)] = ""
	}
	return keys
}

// isAgentAlias reports whether e gives its own parent, a node, a second ID. The
// shape decides and not the creator, so that evicting a node removes the alias
// however it was made, as SPIRE does.
func isAgentAlias(e registration.Entry) bool {
	return len(e.Selectors) == 1 && e.Selectors[0] == aliasSelector(e.ParentID)
}

func aliasSelector(agent spiffeid.ID) registration.Selector {
	return registration.Selector{Type: "spiffe_id", Value: agent.String()}
}

// validID refuses what could not be told from another key.
func validID(id string) error {
	if id == "" || len(id) > 255 || strings.ContainsAny(id, "/#\x00") {
		return fmt.Errorf("entry ID %q cannot be stored", id)
	}
	return nil
}
