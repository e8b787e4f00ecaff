package store

import (
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

const (
	nodeKeyDir    = root + "nodekey/" // + hex(SHA-256(SubjectPublicKeyInfo)): storepb.NodeKey
	joinKeyAgents = "/spire/agent/join_key/"
)

// deleteNodeKey adds to t that the key of an agent that joined by join_key is
// bound to nothing any more. It reports whether the agent's ID is such a one.
func deleteNodeKey(t *txn, agent spiffeid.ID) bool {
	rest, ok := strings.CutPrefix(agent.Path(), joinKeyAgents)
	if !ok {
		return false
	}
	t.delete(nodeKeyDir + rest[strings.LastIndexByte(rest, '/')+1:])
	return true
}
