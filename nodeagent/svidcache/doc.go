// Package svidcache owns the workloads' SVIDs: one key and SVID per entry, kept
// fresh, matched to callers by their selectors, and one encoded answer for all
// streams of the same identities. It does not talk to the issuer or to
// workloads: it is told the state, asks a [Signer], and is asked. DESIGN.md
// defends its choices.
package svidcache
