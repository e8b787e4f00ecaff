// Package harness starts real programs for the integration tests and the demo: Lanyard's binaries, SPIRE's,
// ghostunnel, Envoy and Python's http.server. It knows them by their command lines only, and imports none of
// Lanyard's code. It waits for readiness by asking, ends what it started by process ID, and decides nothing about
// what a test expects.
package harness
