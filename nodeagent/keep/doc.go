// Package keep owns what the agent knows, on disk: entries, bundles and SVIDs
// with their keys, so that an agent that restarts while the issuer is away
// serves at once. It decides neither what is served nor when: that is the
// cache's, which is given what was kept.
package keep
