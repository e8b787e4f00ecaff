package sidecar_test

import (
	"crypto"
	"crypto/x509"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/sidecar"
	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/policy"
)

// keptFiles are those of one end.
type keptFiles struct{ dir string }

func (f keptFiles) at(name string) string { return filepath.Join(f.dir, name) }

func (f keptFiles) write(t *testing.T, cert *x509.Certificate, key crypto.Signer, cas ...*testca.CA) {
	t.Helper()
	testca.Write(t, f.at("cert.pem"), testca.PEM(cert))
	testca.Write(t, f.at("key.pem"), testca.KeyPEM(t, key))
	var roots []*x509.Certificate
	for _, ca := range cas {
		roots = append(roots, ca.Cert)
	}
	testca.Write(t, f.at("ca.pem"), testca.PEM(roots...))
}

func (f keptFiles) svid(t *testing.T, ca *testca.CA, id string) {
	t.Helper()
	svid := ca.SVID(t, id)
	f.write(t, svid.Certificates[0], svid.PrivateKey, ca)
}

// plain is the identity of certificates that are no SVIDs, svids that of SVIDs.
func (f keptFiles) plain() identity.Config {
	return identity.Config{Cert: f.at("cert.pem"), Key: f.at("key.pem"), CACert: f.at("ca.pem")}
}

func (f keptFiles) svids() identity.Config {
	return identity.Config{Cert: f.at("cert.pem"), Key: f.at("key.pem"), TrustBundles: map[string]string{"one.test": f.at("ca.pem")}}
}

// filePair is a chain whose two ends have files.
func filePair(t *testing.T, web, db identity.Config, in, out policy.Config) (*many, sidecar.Tunnel) {
	t.Helper()
	server := sidecar.Tunnel{Name: "in", Mode: sidecar.Server, Listen: freeAddr(t), Target: backend(t, echo), Identity: db, Policy: in}
	client := sidecar.Tunnel{Name: "out", Mode: sidecar.Client, Listen: freeAddr(t), Target: server.Listen, Identity: web, Policy: out}
	return startMany(t, sidecar.Config{Tunnels: []sidecar.Tunnel{server, client}}), client
}

// of returns the last record of a tunnel, once there are n.
func (m *many) of(tunnel string, n int) map[string]any {
	m.log.t.Helper()
	for total := n; ; total++ {
		var own []map[string]any
		for _, rec := range m.log.connections(total) {
			if rec["tunnel"] == tunnel {
				own = append(own, rec)
			}
		}
		if len(own) >= n {
			return own[n-1]
		}
	}
}

// A pair with certificates of host names: the server is known by its name, the client by a rule. Files that are read again
// count for new connections; files that are no good leave the old ones in use.
func TestPairWithCertificateFiles(t *testing.T) {
	ca, other := testca.New(t, "one.test"), testca.New(t, "one.test")
	web, db := keptFiles{t.TempDir()}, keptFiles{t.TempDir()}
	leaf := func(f keptFiles, ca *testca.CA, trusted *testca.CA, name string) {
		t.Helper()
		cert, key := ca.Leaf(t, testca.Host(name))
		f.write(t, cert, key, trusted)
	}
	leaf(web, ca, ca, "web.test")
	leaf(db, ca, ca, "127.0.0.1")
	m, out := filePair(t, web.plain(), db.plain(), policy.Config{AllowDNSNames: []string{"web.test"}}, policy.Config{})
	old := dial(t, out.Listen)
	exchange(t, old, "x")
	asked := 1
	ask := func(want bool) {
		t.Helper()
		asked++
		if got, err := roundTrip(t, out.Listen, "x"); (got == "x" && err == nil) != want {
			t.Fatalf("%q, %v", got, err)
		}
	}
	reload := func(want string) {
		t.Helper()
		err := m.sidecar.ReloadFiles(t.Context())
		if want == "" {
			check(t, err)
		} else if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v, want one line with %q", err, want)
		}
	}
	ask(true)
	if rec := m.of("out", 1); rec["peer_subject"] == nil || rec["cause"] != "closed" || rec["server_name"] != nil {
		t.Errorf("%v", rec)
	}
	leaf(db, ca, ca, "other.test") // not read yet
	ask(true)
	reload("")
	ask(false)
	if rec := m.of("out", 3); rec["cause"] != "refused" || !strings.Contains(rec["error"].(string), "127.0.0.1") {
		t.Errorf("%v", rec)
	}
	leaf(db, other, ca, "127.0.0.1") // of an authority that the client does not know
	reload("")
	ask(false)
	leaf(web, ca, other, "web.test") // and now does
	reload("")
	ask(true)
	testca.Write(t, web.at("cert.pem"), []byte("garbage"))
	reload(web.at("cert.pem"))
	ask(true)
	exchange(t, old, "the first is still there")
}

// Gap 8: SVIDs in files are verified by SPIFFE ID against the bundle of their trust domain, not by host name.
func TestGap08PairWithSVIDsInFiles(t *testing.T) {
	ca, other := testca.New(t, "one.test"), testca.New(t, "one.test")
	web, db := keptFiles{t.TempDir()}, keptFiles{t.TempDir()}
	web.svid(t, ca, webID)
	db.svid(t, ca, dbID)
	m, out := filePair(t, web.svids(), db.svids(), policy.Config{AllowURIs: []string{webID}}, policy.Config{AllowURIs: []string{dbID}})
	if got, err := roundTrip(t, out.Listen, "x"); got != "x" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	if rec := m.of("out", 1); rec["spiffe_id"] != webID || rec["peer_spiffe_id"] != dbID || rec["rule"] != "allow_uris "+dbID {
		t.Errorf("%v", rec)
	}
	web.svid(t, other, webID) // the server does not know this authority, nor the client the server's
	check(t, m.sidecar.ReloadFiles(t.Context()))
	if got, err := roundTrip(t, out.Listen, "x"); isCleanEnd(err) {
		t.Fatalf("answered %q", got)
	}
	db.svid(t, other, dbID)
	check(t, m.sidecar.ReloadFiles(t.Context()))
	if got, err := roundTrip(t, out.Listen, "x"); got != "x" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
}

// Files that are watched need nobody to tell.
func TestGap15WatchedFilesAreReadAgain(t *testing.T) {
	ca := testca.New(t, "one.test")
	web, db := keptFiles{t.TempDir()}, keptFiles{t.TempDir()}
	web.svid(t, ca, webID)
	db.svid(t, ca, dbID)
	watched := web.svids()
	watched.Watch = true
	m, out := filePair(t, watched, db.svids(), policy.Config{AllowURIs: []string{webID}}, policy.Config{AllowURIs: []string{dbID}})
	web.svid(t, ca, "spiffe://one.test/other")
	m.log.await("certificate files read again", 1)
	deadline := time.Now().Add(limit) // the certificate may have been read between two writes
	for n := 1; ; n++ {
		if _, err := roundTrip(t, out.Listen, "x"); !isCleanEnd(err) && m.of("out", n)["spiffe_id"] == "spiffe://one.test/other" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the new certificate is not used")
		}
	}
}
