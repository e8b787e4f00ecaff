package integration

import (
	"path/filepath"
	"testing"
)

// TestInteropJWTSVIDsOfOurAgentUnderSPIREServer does what TestJWTSVIDsOfOurAgent does below a real spire-server, its tainted
// key included, with Python too.
func TestInteropJWTSVIDsOfOurAgentUnderSPIREServer(t *testing.T) {
	t.Parallel()
	server, python := peer(t, "spire-server"), pythonBinary(t)
	s := newJWTStage(t, server)
	id := s.issuer.ID("/gopher")
	s.issuer.Entry(s.node, s.issuer.ID("/snake"), pythonPath(t, python))
	s.rotate(t, s.source(t, id), id)
	s.python(python, s.issuer.ID("/snake"))
	s.lanyard(t, s.issuer.ID("/cli"))
}

// TestInteropJWTCommandsOfSPIREAgentAtOurAgent fetches and validates with the command line of a real spire-agent: what it
// prints is what ours prints.
func TestInteropJWTCommandsOfSPIREAgentAtOurAgent(t *testing.T) {
	t.Parallel()
	spire, err := filepath.EvalSymlinks(peer(t, "spire-agent"))
	if err != nil {
		t.Fatal(err)
	}
	s := newJWTStage(t, "")
	ours := filepath.Join(bin, "lanyard")
	id := s.issuer.ID("/cli")
	s.issuer.Entry(s.node, id, spire)
	s.issuer.Entry(s.node, id, ours)
	theirFetch, theirValid := s.commands(t, id, spire)
	ourFetch, ourValid := s.commands(t, id, ours, "agent")
	if theirFetch != ourFetch {
		t.Errorf("fetch jwt: spire-agent prints\n%s\nours\n%s", theirFetch, ourFetch)
	}
	if theirValid != ourValid {
		t.Errorf("validate jwt: spire-agent prints\n%s\nours\n%s", theirValid, ourValid)
	}
}
