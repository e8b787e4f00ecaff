package serverapi

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/internal/testca"
)

func TestClientCertificateIsVerified(t *testing.T) {
	r := newRig(t)
	same := testca.New(t, "lanyard.test") // our name, not our CA
	other := testca.New(t, "other.test")
	expired := r.sign(spiffeID("/web"))
	for name, svid := range map[string]*x509svid.SVID{
		"another CA's":           same.SVID(t, "spiffe://lanyard.test/admin"),
		"another trust domain's": other.SVID(t, "spiffe://other.test/admin"),
		"ours, for another trust domain": {
			Certificates: other.SVID(t, "spiffe://lanyard.test/admin").Certificates, PrivateKey: other.Key,
		},
	} {
		_, err := bundlev1.NewBundleClient(r.as(svid)).GetBundle(t.Context(), &bundlev1.GetBundleRequest{})
		if status.Code(err) != codes.Unavailable {
			t.Errorf("with %s certificate: %v", name, err)
		}
	}
	if want := `no bundle of trust domain`; !strings.Contains(r.log.String(), want) {
		t.Errorf("the log has no %q:\n%s", want, r.log.String())
	}
	_, err := bundlev1.NewBundleClient(r.as(expired)).GetBundle(t.Context(), &bundlev1.GetBundleRequest{})
	must(t, err)
	r.ahead.Store(int64(2 * 60 * 60 * 1e9))
	must(t, r.deps.CA.Load(t.Context())) // the issuer's own is renewed
	_, err = bundlev1.NewBundleClient(r.as(expired)).GetBundle(t.Context(), &bundlev1.GetBundleRequest{})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("with an expired certificate: %v", err)
	}
}

func TestHandshake(t *testing.T) {
	r := newRig(t)
	dial := func(change func(*tls.Config)) (tls.ConnectionState, error) {
		cfg := r.clientTLS(r.sign(adminID))
		cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		change(cfg)
		var state tls.ConnectionState
		for range 2 { // the second could resume the first
			conn, err := tls.Dial("tcp", r.addr, cfg)
			if err != nil {
				return state, err
			}
			// Tickets come before the first data of the server's: its settings.
			if _, err := conn.Read(make([]byte, 1)); err != nil {
				return state, err
			}
			state = conn.ConnectionState()
			must(t, conn.Close())
		}
		return state, nil
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		state, err := dial(func(c *tls.Config) { c.MaxVersion = version })
		must(t, err)
		if state.DidResume || state.NegotiatedProtocol != "h2" || state.Version != version {
			t.Errorf("resumed %v, %s, %s", state.DidResume, state.NegotiatedProtocol, tls.VersionName(state.Version))
		}
		if got := state.PeerCertificates[0].URIs[0].String(); got != "spiffe://lanyard.test/spire/server" {
			t.Errorf("server is %s", got)
		}
	}
	if _, err := dial(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }); err == nil {
		t.Error("TLS 1.1 was taken")
	}
}

func TestRequirePQKEM(t *testing.T) {
	r := newRigWith(t, func(d *Deps) { d.RequirePQKEM = true })
	for name, tt := range map[string]struct {
		change func(*tls.Config)
		ok     bool
	}{
		"Go's defaults": {func(*tls.Config) {}, true},
		"no hybrid":     {func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256} }, false},
		"TLS 1.2":       {func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, false},
	} {
		cfg := r.clientTLS(nil)
		tt.change(cfg)
		conn, err := tls.Dial("tcp", r.addr, cfg)
		if (err == nil) != tt.ok {
			t.Errorf("%s: err = %v", name, err)
		}
		if err == nil {
			if id := conn.ConnectionState().CurveID; id != tls.X25519MLKEM768 {
				t.Errorf("%s: %s", name, id)
			}
			must(t, conn.Close())
		}
	}
}

// TestCallsAreLogged wants one line for each call that changes or signs or is
// refused, with who and what.
func TestCallsAreLogged(t *testing.T) {
	r := newRig(t)
	svid := r.join()
	_, err := agentv1.NewAgentClient(r.as(svid)).ListAgents(t.Context(), &agentv1.ListAgentsRequest{})
	if status.Code(err) != codes.PermissionDenied {
		t.Fatal(err)
	}
	created, err := entryv1.NewEntryClient(r.local()).BatchCreateEntry(t.Context(), &entryv1.BatchCreateEntryRequest{
		Entries: []*types.Entry{registration.Entry{
			SPIFFEID: spiffeID("/web"), ParentID: svid.ID, Selectors: []registration.Selector{{Type: "unix", Value: "uid:0"}},
		}.Proto(), {}},
	})
	must(t, err)
	_, err = agentv1.NewAgentClient(r.local()).ListAgents(t.Context(), &agentv1.ListAgentsRequest{})
	must(t, err)
	for _, want := range []string{
		"level=INFO msg=call method=/spire.api.server.agent.v1.Agent/CreateJoinToken caller=local caller_pid=" + strconv.Itoa(os.Getpid()) + " caller_uid=",
		"level=INFO msg=call method=/spire.api.server.agent.v1.Agent/AttestAgent caller=none address=127.0.0.1:",
		"serial=" + svid.Certificates[0].SerialNumber.String(),
		"level=WARN msg=call method=/spire.api.server.agent.v1.Agent/ListAgents caller=" + svid.ID.String() + " address=127.0.0.1:",
		"done=1 failed=1 items=[" + created.Results[0].Entry.Id + "]",
		"level=DEBUG msg=call method=/spire.api.server.agent.v1.Agent/ListAgents caller=local caller_pid=",
	} {
		if n := strings.Count(r.log.String(), want); n != 1 {
			t.Errorf("%d lines with %q in\n%s", n, want, r.log.String())
		}
	}
}

// What a stranger sends must not fill the log: an error about a URI repeats it
// twice, in quotes.
func TestStrangersTextIsCutInTheLog(t *testing.T) {
	r := newRig(t)
	key := newKey(t)
	uri := "http://[" + strings.Repeat("\x01", 8<<10)
	san, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(uri)}})
	must(t, err)
	csr := csrOf(t, &x509.CertificateRequest{
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: san}},
	}, key)
	if _, err := r.attestWith("join_token", r.token(), csr, key); err == nil {
		t.Fatal("accepted")
	}
	for line := range strings.Lines(r.log.String()) {
		if len(line) > 8<<10 {
			t.Errorf("a line of %d bytes: %.200s", len(line), line)
		}
	}
	if !strings.Contains(r.log.String(), "failed to parse CSR: x509") {
		t.Errorf("the log does not say what is wrong:\n%.4000s", r.log.String())
	}
}
