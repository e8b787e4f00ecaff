package store

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

// The layout of the keys, version 2. A change to any of it needs another
// version and a way over. Of the first two there are very many; what is before
// their names is short because etcd has every key in memory, rounded up to a
// size of Go's heap: 48 bytes and 32.
const (
	root = "lanyard/2/"

	domainKey   = root + "trust-domain"
	bundleKey   = root + "bundle"
	entryDir    = root + "e/"        // + entry ID: types.Entry
	uniqueDir   = root + "u/"        // + Entry.Sum(), its bytes: entry ID
	aliasDir    = root + "alias/"    // + agent ID + "#" + entry ID: nothing
	agentDir    = root + "agent/"    // + agent ID: storepb.Agent
	templateDir = root + "template/" // + path of the template + "#" + entry ID: nothing
	// federatedDir and relationshipDir have the name of the trust domain behind them.
	federatedDir    = root + "federated/"    // types.Bundle
	relationshipDir = root + "relationship/" // types.FederationRelationship without its bundle
	restoredKey     = root + "restored"      // Unix seconds, decimal: the mark of a restore
	runsKey         = root + "runs"          // a line for each of the latest runs: its name, and the revision it began after
	tokenDir        = root + "token/"        // + hex(SHA-256(token)): storepb.JoinToken
	// authorityDir is of the one issuer there is; each further one has its own.
	authorityDir = root + "authority/1/" // + authority ID: storepb.X509Authority
)

const joinTokenAgents = "/spire/agent/join_token/"

func entryKey(id string) string          { return entryDir + id }
func agentKey(id spiffeid.ID) string     { return agentDir + id.String() }
func aliasesOf(agent spiffeid.ID) string { return aliasDir + agent.String() + "#" }

func uniqueKey(e registration.Entry) string {
	sum := e.Sum()
	return uniqueDir + string(sum[:])
}

// tokenKey hides the token: a copy of the store gives nobody a way to join.
func tokenKey(token string) string {
	sum := sha256.Sum256([]byte(token))
	return tokenDir + hex.EncodeToString(sum[:])
}

// tokenOf returns the join token that an agent ID was made from.
func tokenOf(agent spiffeid.ID) (string, bool) {
	return strings.CutPrefix(agent.Path(), joinTokenAgents)
}

// derivedKey is a key that stands and falls with an entry, and its value.
type derivedKey struct{ key, value string }

// derivations returns the keys that stand and fall with e; the first is its
// uniqueKey.
func derivations(e registration.Entry) []derivedKey {
	keys := make([]derivedKey, 1, 2)
	keys[0] = derivedKey{uniqueKey(e), e.ID}
	if isAgentAlias(e) {
		keys = append(keys, derivedKey{aliasesOf(e.ParentID) + e.ID, ""})
	}
	if !e.Template.IsZero() {
		keys = append(keys, derivedKey{templateKey(e), ""})
	}
	return keys
}

// derivedKeys yields the derivations of e.
func derivedKeys(e registration.Entry) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for _, k := range derivations(e) {
			if !yield(k.key, k.value) {
				return
			}
		}
	}
}

// isAgentAlias reports whether e gives its own parent, a node, a second ID. The
// shape decides and not the creator, so that evicting a node removes the alias
// however it was made, as SPIRE does.
func isAgentAlias(e registration.Entry) bool {
	return len(e.Selectors) == 1 && e.Selectors[0].Type == aliasType && e.Selectors[0].Value == e.ParentID.String()
}

// aliasType is the type of the selector that every agent has for itself.
const aliasType = "spiffe_id"

func aliasSelector(agent spiffeid.ID) registration.Selector {
	return registration.Selector{Type: aliasType, Value: agent.String()}
}

// validID refuses what could not be told from another key.
func validID(id string) error {
	if id == "" || len(id) > 255 || strings.ContainsAny(id, "/#\x00") {
		return fmt.Errorf("entry ID %q cannot be stored", id)
	}
	return nil
}
