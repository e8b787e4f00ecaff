package integration

import (
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// TestPushReachesWaitingClients has an agent that would poll once an hour, and a workload that waits: what is changed at the
// issuer reaches it nevertheless.
func TestPushReachesWaitingClients(t *testing.T) {
	t.Parallel()
	r := newFaults(t, harness.IssuerSpec{}, "1h")
	first, second := r.issuer.ID("/first"), r.issuer.ID("/second")
	r.create(first, "")
	s := r.stream
	s.has(first)

	// Entries.
	id := r.create(second, "")
	s.has(first, second)
	r.issuer.Admin("entry", "delete", "-entryID", id)
	left := s.has(first)
	s.forbid(second)
	own, ok := left.Bundles.Get(spiffeid.RequireTrustDomainFromString(r.issuer.TrustDomain))
	if !ok {
		t.Fatal("no bundle of the own trust domain")
	}

	// Bundles: the own, and one that an entry federates with.
	r.issuer.Admin("localauthority", "x509", "prepare")
	s.authorities(r.issuer.TrustDomain, len(own.X509Authorities())+1)
	foreign := harness.NewAuthority(t, r.Dir, "foreign.test")
	r.issuer.Admin("bundle", "set", "-id", "spiffe://foreign.test", "-path", foreign.CA)
	third := r.issuer.ID("/third")
	r.create(third, "", "-federatesWith", "spiffe://foreign.test")
	s.has(first, third)
	s.authorities("foreign.test", 1)

	// After the issuer was away.
	r.issuer.Process.Kill()
	r.issuer.Start()
	r.create(second, "")
	s.has(first, second, third)

	// The last entries go, and the stream with them.
	for _, id := range r.entries {
		r.issuer.TryAdmin(t.Context(), "entry", "delete", "-entryID", id)
	}
	s.denied()
	s.forbid(second)
	s.forbid(third)
	r.create(first, "")
	s.has(first)
}

// TestInteropAgentPollsSPIREServer has the same agent below a real spire-server: there it asks at its sync interval.
func TestInteropAgentPollsSPIREServer(t *testing.T) {
	t.Parallel()
	r := newFaults(t, harness.IssuerSpec{SPIREServer: peer(t, "spire-server")}, "1s")
	first, second := r.issuer.ID("/first"), r.issuer.ID("/second")
	r.create(first, "")
	r.stream.has(first)
	id := r.create(second, "")
	r.stream.has(first, second)
	r.issuer.Admin("entry", "delete", "-entryID", id)
	r.stream.has(first)
	r.issuer.Admin("entry", "delete", "-entryID", r.entries[0])
	r.stream.denied()
}
