// Package keep owns what the agent knows, on disk: entries, bundles and SVIDs
// with their keys, so that an agent that restarts while the issuer is away
// serves at once. It decides neither what is served nor when: that is the
// cache's, which is given what was kept.
//
// The file is private keys, as the agent's own beside it are: mode 0600, replaced
// whole and atomically, read only if nobody else could have read or written it.
// It begins with [magic] and a version, goes on with frames, each a kind, a length
// and a message, and ends with a SHA-256 of all before, which tells a file that
// was cut or damaged. It is bound to the agent's SPIFFE ID and is no secret's
// protection from root.
package keep
