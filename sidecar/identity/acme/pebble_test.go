package acme_test

import (
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"strconv"
	"testing"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/miekg/dns"
)

// authority is a real ACME authority: Pebble, Let's Encrypt's own for tests.
type authority struct {
	directory string
	https     *x509.CertPool // verifies the directory
	roots     *x509.CertPool // verify what it issues
	stop      func()
}

// pebble starts an authority that validates challenges at port of 127.0.0.1, whatever the name is, and whose certificates
// are valid for so many seconds.
func pebble(t *testing.T, port int, seconds uint64) authority {
	t.Helper()
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	t.Setenv("PEBBLE_WFE_NONCEREJECT", "0")
	logger := log.New(io.Discard, "", 0)
	store := db.NewMemoryStore()
	issuing := ca.New(logger, store, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {ValidityPeriod: seconds}})
	validating := va.New(logger, 0, port, false, resolver(t), store)
	front := wfe.New(logger, store, validating, issuing, []string{"pebble.test"}, false, false, 1, 1)
	server := httptest.NewTLSServer(front.Handler())
	t.Cleanup(server.Close)
	a := authority{directory: server.URL + wfe.DirectoryPath, https: x509.NewCertPool(), roots: x509.NewCertPool(), stop: server.Close}
	a.https.AddCert(server.Certificate())
	a.roots.AddCert(issuing.GetRootCert(0).Cert)
	return a
}

// resolver starts a name server for which every name is 127.0.0.1.
func resolver(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") // Pebble asks by TCP
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{Listener: l, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		if len(q.Question) == 1 && q.Question[0].Qtype == dns.TypeA {
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(127, 0, 0, 1)}}
		}
		w.WriteMsg(m)
	})}
	done := make(chan error, 1)
	go func() { done <- server.ActivateAndServe() }()
	t.Cleanup(func() {
		server.Shutdown()
		<-done
	})
	return l.Addr().String()
}

func portOf(t *testing.T, addr string) int {
	t.Helper()
	_, p, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(p)
	if err != nil {
		t.Fatal(err)
	}
	return port
}
