package enroll_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"net/netip"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/nodeattest/joinkey"
	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/issuer/ca"
	"github.com/lanyard-mtls/lanyard/issuer/enroll"
	"github.com/lanyard-mtls/lanyard/issuer/registry"
	"github.com/lanyard-mtls/lanyard/issuer/store"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// rig is an Enroller over a real store, registry and authority.
type rig struct {
	*enroll.Enroller
	t     testing.TB
	store *store.Store
	reg   *registry.Registry
	ca    *ca.Authority
	only  *node // of tests with one node
}

// newRig returns a rig that can sign.
func newRig(t testing.TB, configure ...func(*enroll.Config)) *rig {
	t.Helper()
	r := newUnloadedRig(t, configure...)
	must(t, r.ca.Load(t.Context()))
	return r
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}

func newCSR(t testing.TB, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	must(t, err)
	return csr
}

// token makes one; its zero fields are of a token of join_key for one use.
func (r *rig) token(req enroll.TokenRequest) enroll.TokenCreated {
	r.t.Helper()
	if req.Method == "" {
		req.Method = "join_key"
	}
	if req.TTL == 0 {
		req.TTL = hour
	}
	created, err := r.CreateToken(r.t.Context(), req)
	must(r.t, err)
	return created
}

// exporter is that of a connection with the name.
func exporter(connection string) enroll.Exporter {
	return func(label string, context []byte, n int) ([]byte, error) {
		sum := sha256.Sum256([]byte(connection + "\x00" + label + "\x00" + string(context)))
		return sum[:n], nil
	}
}

// node is a machine that joins by join_key.
type node struct {
	r    *rig
	key  *ecdsa.PrivateKey
	peer netip.Addr
}

func (r *rig) node() *node {
	return &node{r: r, key: newKey(r.t), peer: netip.MustParseAddr("192.0.2.1")}
}

func (n *node) hash() [32]byte {
	der, err := x509.MarshalPKIXPublicKey(n.key.Public())
	must(n.r.t, err)
	return sha256.Sum256(der)
}

// attempt is one to join with the token, "" for none, and an SVID key of its own.
func (n *node) attempt(token string) enroll.Attempt {
	n.r.t.Helper()
	svidKey := newKey(n.r.t)
	claim, err := joinkey.NewClaim(n.key.Public(), token)
	must(n.r.t, err)
	spki, err := x509.MarshalPKIXPublicKey(svidKey.Public())
	must(n.r.t, err)
	about := joinkey.Attempt{TrustDomain: td, CSRKeyHash: sha256.Sum256(spki), Exporter: exporter("one")}
	return enroll.Attempt{
		Method: "join_key", Payload: claim, CSR: newCSR(n.r.t, svidKey), Peer: n.peer, Exporter: exporter("one"),
		Challenge: func(_ context.Context, challenge []byte) ([]byte, error) {
			return joinkey.Respond(n.key, claim, challenge, about)
		},
	}
}

func (n *node) join(token string) (enroll.Admission, error) {
	n.r.t.Helper()
	return n.r.Attest(n.r.t.Context(), n.attempt(token))
}

func (r *rig) agent(id spiffeid.ID) *storepb.Agent {
	r.t.Helper()
	agent, ok := r.reg.Agent(id)
	if !ok {
		r.t.Fatalf("agent %s is not known", id)
	}
	return agent
}

// ban does what BanAgent does, and evict what DeleteAgent does.
func (r *rig) ban(id spiffeid.ID) {
	r.t.Helper()
	_, rev, err := r.store.UpdateAgent(r.t.Context(), id, func(a *storepb.Agent) error {
		a.Banned, a.Serial, a.NewSerial = true, "", ""
		return nil
	})
	must(r.t, err)
	must(r.t, r.reg.Wait(r.t.Context(), rev))
}

func (r *rig) evict(id spiffeid.ID) {
	r.t.Helper()
	rev, err := r.store.DeleteAgent(r.t.Context(), id)
	must(r.t, err)
	must(r.t, r.reg.Wait(r.t.Context(), rev))
}

func (r *rig) entries() []registration.Entry {
	r.t.Helper()
	snap, err := r.store.Snapshot(r.t.Context())
	must(r.t, err)
	return snap.Entries
}

func (r *rig) setVersion(id spiffeid.ID, version string) {
	r.t.Helper()
	_, rev, err := r.store.UpdateAgent(r.t.Context(), id, func(a *storepb.Agent) error {
		a.AgentVersion, a.NewSerial = version, "7"
		return nil
	})
	must(r.t, err)
	must(r.t, r.reg.Wait(r.t.Context(), rev))
}
