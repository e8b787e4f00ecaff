package sds

import (
	"strings"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/testca"
)

func TestSDSStreamServesEveryName(t *testing.T) {
	one, two := testca.New(t, "one.test"), testca.New(t, "two.test")
	web, batch := one.SVID(t, ownID), one.SVID(t, secondID)
	src := newSource()
	src.set(contextOf([]*x509svid.SVID{web, batch}, one, two))
	c := dialSotW(t, serveSource(t, src, Options{}))

	names := []string{"default", "ROOTCA", "ALL", ownID, secondID, ownDomain, farDomain}
	c.want(names...)
	got := c.next()
	wantNames(t, got, names...)
	for name, svid := range map[string]*x509svid.SVID{"default": web, ownID: web, secondID: batch} {
		if !leafOf(t, got[name]).Equal(svid.Certificates[0]) {
			t.Errorf("%s is not the SVID of %s", name, svid.ID)
		}
	}
	for name, domains := range map[string][]string{
		"ROOTCA": {"one.test"}, "ALL": {"one.test", "two.test"}, ownDomain: {"one.test"}, farDomain: {"two.test"},
	} {
		wantDomains(t, got[name], domains...)
	}
}

func TestSDSStreamSendsOnlyWhatChanged(t *testing.T) {
	one, two := testca.New(t, "one.test"), testca.New(t, "two.test")
	src := newSource()
	src.set(contextOf([]*x509svid.SVID{one.SVID(t, ownID)}, one))
	c := dialSotW(t, serveSource(t, src, Options{}))
	c.want("ROOTCA")
	c.next()
	version := c.last.GetVersionInfo()
	c.want("ROOTCA") // acknowledged

	// A new SVID changes nothing here; the next answer is the one to a new name.
	rotated := one.SVID(t, ownID)
	src.set(contextOf([]*x509svid.SVID{rotated}, one))
	c.want("ROOTCA", farDomain) // not there yet: waits
	src.set(contextOf([]*x509svid.SVID{rotated}, one, two))
	wantNames(t, c.next(), "ROOTCA", farDomain)
	if c.last.GetNonce() != "2" {
		t.Errorf("nonce %s: something was sent in between", c.last.GetNonce())
	}
	if c.last.GetVersionInfo() == version {
		t.Error("a new set has the version of the old one")
	}
	// Back to the first set: its version is that of its content.
	c.want("ROOTCA")
	c.want("default")
	c.next()
	c.want("ROOTCA")
	c.next()
	if c.last.GetVersionInfo() != version {
		t.Errorf("version %s of the same content, was %s", c.last.GetVersionInfo(), version)
	}
}

func TestSDSStreamPushesRotations(t *testing.T) {
	one := testca.New(t, "one.test")
	src := newSource()
	c := dialSotW(t, serveSource(t, src, Options{}))
	c.want("default") // before there is an identity
	for range 5 {
		svid := one.SVID(t, ownID)
		src.set(contextOf([]*x509svid.SVID{svid}, one))
		if got := leafOf(t, c.next()["default"]); !got.Equal(svid.Certificates[0]) {
			t.Fatal("not the rotated SVID")
		}
		c.want("default")
	}
}

func TestSDSStreamRejectionIsLoggedAndNotRepeated(t *testing.T) {
	one := testca.New(t, "one.test")
	var log logBuffer
	src := newSource()
	src.set(contextOf([]*x509svid.SVID{one.SVID(t, ownID)}, one))
	c := dialSotW(t, serveSource(t, src, Options{Log: log.logger()}))
	c.want("default")
	c.next()
	c.reject("no such cipher, said Envoy", "default")
	c.reject("no such cipher, said Envoy", "default")
	c.want("default", "ROOTCA")
	wantNames(t, c.next(), "default", "ROOTCA")
	if c.last.GetNonce() != "2" {
		t.Errorf("nonce %s: the rejected secret was sent again", c.last.GetNonce())
	}
	wantLogged(t, &log, "no such cipher, said Envoy", 1)
	// A rejected secret does not stop its successor.
	svid := one.SVID(t, ownID)
	src.set(contextOf([]*x509svid.SVID{svid}, one))
	if !leafOf(t, c.next()["default"]).Equal(svid.Certificates[0]) {
		t.Error("not the rotated SVID")
	}
}

func TestSDSStreamIgnoresStaleNonces(t *testing.T) {
	one := testca.New(t, "one.test")
	src := newSource()
	src.set(contextOf([]*x509svid.SVID{one.SVID(t, ownID)}, one))
	c := dialSotW(t, serveSource(t, src, Options{}))
	c.want("default")
	c.next()
	first := c.last
	src.set(contextOf([]*x509svid.SVID{one.SVID(t, ownID)}, one))
	c.next()
	for _, nonce := range []string{first.GetNonce(), "77", "x", strings.Repeat("9", 50)} {
		c.send(&discoveryv3.DiscoveryRequest{ResourceNames: []string{"ALL"}, ResponseNonce: nonce})
	}
	c.want("default", "ROOTCA")
	wantNames(t, c.next(), "default", "ROOTCA")
}

func TestSDSStreamTakesASubscriptionThatCrossedTheFirstAnswer(t *testing.T) {
	one := testca.New(t, "one.test")
	src := newSource()
	src.set(contextOf([]*x509svid.SVID{one.SVID(t, ownID)}, one))
	c := dialSotW(t, serveSource(t, src, Options{}))
	c.want("default")
	wantNames(t, c.next(), "default")
	c.send(&discoveryv3.DiscoveryRequest{ResourceNames: []string{"default", "ROOTCA"}})
	wantNames(t, c.next(), "default", "ROOTCA")
}

func TestSDSStreamAnswersANewSubscriptionAfterNone(t *testing.T) {
	one := testca.New(t, "one.test")
	src := newSource()
	src.set(contextOf([]*x509svid.SVID{one.SVID(t, ownID)}, one))
	c := dialSotW(t, serveSource(t, src, Options{}))
	c.want("default")
	c.next()
	c.want()
	c.want("default")
	wantNames(t, c.next(), "default")
}

func TestSDSStreamWithoutNamesServesAllByID(t *testing.T) {
	one, two := testca.New(t, "one.test"), testca.New(t, "two.test")
	src := newSource()
	src.set(contextOf([]*x509svid.SVID{one.SVID(t, ownID)}, one))
	c := dialSotW(t, serveSource(t, src, Options{}))
	c.want()
	wantNames(t, c.next(), ownID, ownDomain)
	c.want()
	src.set(contextOf([]*x509svid.SVID{one.SVID(t, ownID)}, one, two))
	wantNames(t, c.next(), ownID, ownDomain, farDomain)
	c.want("ROOTCA")
	wantNames(t, c.next(), "ROOTCA")
}

func TestSDSStreamKeepsWhatItCannotTakeBack(t *testing.T) {
	one := testca.New(t, "one.test")
	var log logBuffer
	src := newSource()
	web, batch := one.SVID(t, ownID), one.SVID(t, secondID)
	src.set(contextOf([]*x509svid.SVID{web, batch}, one))
	c := dialSotW(t, serveSource(t, src, Options{Log: log.logger()}))
	c.want(secondID)
	c.next()
	c.want(secondID)
	src.set(contextOf([]*x509svid.SVID{web}, one))
	src.set(contextOf([]*x509svid.SVID{web}, one))
	wantLogged(t, &log, "secrets are gone", 1)
	src.fail(status.Error(codes.PermissionDenied, "no identity issued"))
	batch = one.SVID(t, secondID)
	src.set(contextOf([]*x509svid.SVID{web, batch}, one))
	got := c.next()
	if !leafOf(t, got[secondID]).Equal(batch.Certificates[0]) {
		t.Error("not the SVID that came back")
	}
}
