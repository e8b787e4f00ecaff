// Package conformance owns the checks of SPIRE's server API that any issuer must pass which SPIRE's agents, tools and
// files talk to: each RPC, allowed and refused, by each class of caller. It knows a server by its TCP address, its admin
// socket and its configuration alone, and holds for SPIRE's own server; where Lanyard's is meant to differ, the
// reviewed list (Differences) says how and why. It starts no program itself: the target does.
package conformance
