package tlsend_test

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/sidecar/policy"
	"github.com/lanyard-mtls/lanyard/sidecar/record"
	"github.com/lanyard-mtls/lanyard/sidecar/tlsend"
)

// meet connects a client to a server, and returns what each says of it.
func meet(t *testing.T, r *rig, client, server tlsend.Config, from, to *files) (c, s *record.Record) {
	t.Helper()
	srv := r.serve(tlsend.NewServer(server), to)
	c = r.connect(tlsend.NewClient(client), from, srv.addr)
	return c, srv.last(t)
}

func wantClosed(t *testing.T, recs ...*record.Record) {
	t.Helper()
	for _, rec := range recs {
		if rec.Cause != record.Closed {
			t.Errorf("%s: %v", rec.Cause, rec.Err)
		}
	}
}

func wantCause(t *testing.T, rec *record.Record, cause record.Cause, text string) {
	t.Helper()
	if rec.Cause != cause || rec.Err == nil || !strings.Contains(rec.Err.Error(), text) {
		t.Errorf("%s: %v, want %s: %q", rec.Cause, rec.Err, cause, text)
	}
}

// ghostunnel's clients check host names even of SVIDs in files, so that these can't be used.
func TestGap08SVIDsInFilesAreVerifiedByID(t *testing.T) {
	one, two := testca.New(t, "one.test"), testca.New(t, "two.test")
	r := newRig(t)
	web := r.svids(one.SVID(t, "spiffe://one.test/web"), one, two)
	only := func(id string) tlsend.Config {
		return tlsend.Config{Policy: rules(t, policy.Config{AllowURIs: []string{id}}), ServerName: "localhost", VerifyName: "localhost"}
	}
	all := tlsend.Config{Policy: allowAll(t)}
	name, nameKey := one.Leaf(t, testca.Host("localhost"))
	for name, tt := range map[string]struct {
		server *files
		want   string
		cause  record.Cause
	}{
		"own trust domain":     {r.svids(one.SVID(t, "spiffe://one.test/db"), one), "spiffe://one.test/db", record.Closed},
		"federated one":        {r.svids(two.SVID(t, "spiffe://two.test/db"), two, one), "spiffe://two.test/db", record.Closed},
		"other ID":             {r.svids(one.SVID(t, "spiffe://one.test/x"), one), "spiffe://one.test/db", record.Refused},
		"crossed":              {r.svids(two.SVID(t, "spiffe://one.test/db"), one), "spiffe://one.test/db", record.Refused},
		"a name, and no SVID":  {r.web(name, nameKey, one.Cert), "spiffe://one.test/db", record.Refused},
		"unknown trust domain": {r.svids(testca.New(t, "three.test").SVID(t, "spiffe://three.test/db"), one), "spiffe://three.test/db", record.Refused},
	} {
		t.Run(name, func(t *testing.T) {
			c, s := meet(t, r, only(tt.want), all, web, tt.server)
			if c.Cause != tt.cause {
				t.Errorf("%s: %v", c.Cause, c.Err)
			}
			if tt.cause == record.Closed && (c.Peer.String() != tt.want || s.Peer.String() != "spiffe://one.test/web" || c.PeerSubject != "" || c.PeerClaimed || s.PeerClaimed) {
				t.Errorf("client %+v, server %+v", c, s)
			}
		})
	}
}

// ghostunnel's clients take any SVID of any trust domain that there is a bundle of.
func TestGap02ClientExpectsItsOwnTrustDomain(t *testing.T) {
	one, two := testca.New(t, "one.test"), testca.New(t, "two.test")
	r := newRig(t)
	web := r.svids(one.SVID(t, "spiffe://one.test/web"), one, two)
	own := tlsend.Config{Policy: rules(t, policy.Config{OwnTrustDomain: true, Direction: policy.Outbound})}
	all := tlsend.Config{Policy: allowAll(t)}
	c, _ := meet(t, r, own, all, web, r.svids(one.SVID(t, "spiffe://one.test/db"), one))
	wantClosed(t, c)
	c, s := meet(t, r, own, all, web, r.svids(two.SVID(t, "spiffe://two.test/evil"), two, one))
	wantCause(t, c, record.Refused, "refused spiffe://two.test/evil: ")
	if c.PeerClaimed || c.Peer.String() != "spiffe://two.test/evil" {
		t.Errorf("client %+v", c)
	}
	wantCause(t, s, record.RefusedByPeer, "bad certificate")
}

// Without bundles of trust domains, certificates are verified as the web does it, and rules come on top.
func TestWebCertificates(t *testing.T) {
	ca, stranger := testca.New(t, "one.test"), testca.New(t, "two.test")
	r := newRig(t)
	cert := func(signer *testca.CA, opts ...testca.Option) *files {
		c, key := signer.Leaf(t, opts...)
		return r.web(c, key, testca.New(t, "three.test").Cert, stranger.Cert, ca.Cert)
	}
	named := func(name string) testca.Option { return func(c *x509.Certificate) { c.Subject.CommonName = name } }
	usage := func(u x509.ExtKeyUsage) testca.Option {
		return func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{u} }
	}
	server := tlsend.Config{Policy: rules(t, policy.Config{AllowCNs: []string{"web"}})}
	client := tlsend.Config{Policy: rules(t, policy.Config{Direction: policy.Outbound, HostName: true}), VerifyName: "db.test"}
	good, goodServer := cert(ca, named("web")), cert(ca, testca.Host("db.test"))
	onlyOne := func(ca *testca.CA, opts ...testca.Option) *files {
		c, key := ca.Leaf(t, opts...)
		return r.web(c, key, ca.Cert)
	}
	for name, tt := range map[string]struct {
		from, to           *files
		clientSays, server string // "" closed, or what the refusal says
	}{
		"both good":            {good, goodServer, "", ""},
		"other host name":      {good, cert(ca, testca.Host("other.test")), "not db.test", "-"},
		"client's as server's": {good, cert(ca, testca.Host("db.test"), usage(x509.ExtKeyUsageClientAuth)), "incompatible key usage", "-"},
		"expired server":       {good, cert(ca, testca.Host("db.test"), testca.Lifetime(time.Now().Add(-time.Hour), time.Now().Add(-time.Minute))), "expired", "-"},
		"strange server":       {onlyOne(ca, named("web")), cert(stranger, testca.Host("db.test")), "unknown authority", "-"},
		"other name":           {cert(ca, named("other")), goodServer, "-", "refused: "},
		"server's as client's": {cert(ca, named("web"), usage(x509.ExtKeyUsageServerAuth)), goodServer, "-", "incompatible key usage"},
		"strange client":       {cert(stranger, named("web")), onlyOne(ca, testca.Host("db.test")), "-", "unknown authority"},
		"no client":            {r.web(nil, nil, ca.Cert), goodServer, "-", "didn't provide a certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			c, s := meet(t, r, client, server, tt.from, tt.to)
			for _, end := range []struct {
				rec  *record.Record
				want string
			}{{c, tt.clientSays}, {s, tt.server}} {
				switch end.want {
				case "-": // told by the other end only
				case "":
					wantClosed(t, end.rec)
				default:
					if end.rec.Cause == record.Closed || !strings.Contains(end.rec.Err.Error(), end.want) {
						t.Errorf("%s: %v, want %q", end.rec.Cause, end.rec.Err, end.want)
					}
				}
			}
			if name == "both good" && (s.PeerSubject != "CN=web,O=testca,C=US" || s.Rule == "" || c.PeerSubject == "") {
				t.Errorf("client %+v, server %+v", c, s)
			}
			if s.PeerClaimed && s.Peer.IsZero() {
				t.Errorf("server %+v", s)
			}
		})
	}
}

// The decision that a connection begins with is the last one asked for, whichever that is.
func TestNobodyPassesWithoutADecision(t *testing.T) {
	ca := testca.New(t, "one.test")
	r := newRig(t)
	from, to := r.svids(ca.SVID(t, "spiffe://one.test/a"), ca), r.svids(ca.SVID(t, "spiffe://one.test/b"), ca)
	var asked atomic.Int32
	fickle := policyFunc(func(policy.Request) policy.Decision {
		return policy.Decision{Allowed: asked.Add(1) == 1, Reason: "changed my mind"}
	})
	c, s := meet(t, r, tlsend.Config{Policy: allowAll(t)}, tlsend.Config{Policy: fickle}, from, to)
	wantCause(t, s, record.Refused, "refused spiffe://one.test/a: changed my mind")
	if c.Cause == record.Closed || s.PeerClaimed {
		t.Errorf("client %+v, server %+v", c, s)
	}
}

// A host name that is not known, as of target ":8443", is not every host name: any certificate of any authority would do.
func TestServersWithoutAHostNameAreRefused(t *testing.T) {
	ca := testca.New(t, "one.test")
	r := newRig(t)
	cert, key := ca.Leaf(t, testca.Host("evil.test"))
	server := tlsend.Config{Policy: rules(t, policy.Config{DisableAuthentication: true}), NoClientAuth: true}
	for _, p := range []policy.Policy{
		rules(t, policy.Config{Direction: policy.Outbound, HostName: true}),
		rules(t, policy.Config{Direction: policy.Outbound, AllowDNSNames: []string{"evil.test"}}),
	} {
		c, _ := meet(t, r, tlsend.Config{Policy: p}, server, r.web(nil, nil, ca.Cert), r.web(cert, key, ca.Cert))
		wantCause(t, c, record.Refused, "no host name")
	}
}

// A pin stands for the key alone: neither authority nor dates nor names count.
func TestPins(t *testing.T) {
	ca := testca.New(t, "one.test")
	r := newRig(t)
	past := testca.Lifetime(time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))
	pin := func(c *x509.Certificate) policy.Policy {
		sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
		return rules(t, policy.Config{Pins: []string{"sha256:" + base64.StdEncoding.EncodeToString(sum[:])}})
	}
	a, aKey := ca.Leaf(t, past)
	b, bKey := ca.Leaf(t, past)
	pinned := func(c *x509.Certificate) tlsend.Config {
		return tlsend.Config{Policy: pin(c), Pins: true, VerifyName: "db.test"}
	}
	c, s := meet(t, r, pinned(b), pinned(a), r.web(a, aKey), r.web(b, bKey))
	wantClosed(t, c, s)
	if c.PeerSubject == "" || s.Rule == "" {
		t.Errorf("client %+v, server %+v", c, s)
	}
	c, _ = meet(t, r, pinned(a), pinned(a), r.web(a, aKey), r.web(b, bKey))
	wantCause(t, c, record.Refused, "pin")
	_, s = meet(t, r, pinned(b), pinned(b), r.web(a, aKey), r.web(b, bKey))
	wantCause(t, s, record.Refused, "pin")
	// An SVID's ID is only what its certificate says.
	svid := ca.SVID(t, "spiffe://one.test/a", past)
	_, s = meet(t, r, pinned(b), pinned(svid.Certificates[0]), r.web(svid.Certificates[0], svid.PrivateKey), r.web(b, bKey))
	if wantClosed(t, s); !s.PeerClaimed || s.Peer.String() != "spiffe://one.test/a" {
		t.Errorf("server %+v", s)
	}
	// Nobody can resume their way past a pin.
	srv := r.serve(tlsend.NewServer(pinned(a)), r.web(b, bKey))
	res := newResumer(t, srv, tls.VersionTLS13, tls.Certificate{Certificate: [][]byte{svid.Certificates[0].Raw}, PrivateKey: svid.PrivateKey})
	res.mustFail("pin")
}

func TestNoCertificates(t *testing.T) {
	ca := testca.New(t, "one.test")
	r := newRig(t)
	cert, key := ca.Leaf(t, testca.Host("db.test"))
	open := tlsend.Config{Policy: rules(t, policy.Config{DisableAuthentication: true}), NoClientAuth: true}
	client := tlsend.Config{Policy: rules(t, policy.Config{Direction: policy.Outbound, HostName: true}), VerifyName: "db.test"}
	c, s := meet(t, r, client, open, r.web(nil, nil, ca.Cert), r.web(cert, key, ca.Cert))
	wantClosed(t, c, s)
	if !s.Peer.IsZero() || s.PeerSubject != "" || s.Rule == "" {
		t.Errorf("server %+v", s)
	}
	// A client that has a certificate isn't asked for it.
	mine, mineKey := ca.Leaf(t)
	c, s = meet(t, r, client, open, r.web(mine, mineKey, ca.Cert), r.web(cert, key, ca.Cert))
	if wantClosed(t, c, s); s.PeerSubject != "" {
		t.Errorf("server %+v", s)
	}
	// A server without a certificate serves nobody.
	c, s = meet(t, r, client, open, r.web(nil, nil, ca.Cert), r.web(nil, nil, ca.Cert))
	wantCause(t, s, record.NoIdentity, "no certificate to show")
	if c.Cause == record.Closed {
		t.Errorf("client %+v", c)
	}
}
