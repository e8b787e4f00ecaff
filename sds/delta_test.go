package sds

import (
	"fmt"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/testca"
)

func TestSDSDeltaSendsOnlyWhatChanged(t *testing.T) {
	one := testca.New(t, "one.test")
	web, batch := one.SVID(t, ownID), one.SVID(t, secondID)
	src := newSource()
	src.set(contextOf([]*x509svid.SVID{web, batch}, one))
	c := dialDelta(t, serveSource(t, src, Options{}))
	c.subscribe("ROOTCA", ownID, secondID)
	c.expect([]string{"ROOTCA", secondID, ownID}, nil)
	c.ack()
	for range 3 {
		batch = one.SVID(t, secondID)
		src.set(contextOf([]*x509svid.SVID{web, batch}, one))
		got := c.expect([]string{secondID}, nil)
		if !leafOf(t, got[secondID]).Equal(batch.Certificates[0]) {
			t.Fatal("not the rotated SVID")
		}
		c.ack()
	}
}

func TestSDSDeltaWaitsForNamesAndRemovesThem(t *testing.T) {
	one, two := testca.New(t, "one.test"), testca.New(t, "two.test")
	web := one.SVID(t, ownID)
	src := newSource()
	c := dialDelta(t, serveSource(t, src, Options{}))
	c.subscribe("default", farDomain, "no such name")
	src.set(contextOf([]*x509svid.SVID{web}, one))
	c.expect([]string{"default"}, nil)
	c.ack()
	src.set(contextOf([]*x509svid.SVID{web}, one, two))
	c.expect([]string{farDomain}, nil)
	src.set(contextOf([]*x509svid.SVID{web}, one))
	c.expect(nil, []string{farDomain})
	src.set(contextOf([]*x509svid.SVID{web}, one, two))
	c.expect([]string{farDomain}, nil)
}

func TestSDSDeltaRemovesWhatADeniedCallerHad(t *testing.T) {
	one := testca.New(t, "one.test")
	svid := one.SVID(t, ownID)
	src := newSource()
	src.set(contextOf([]*x509svid.SVID{svid}, one))
	c := dialDelta(t, serveSource(t, src, Options{}))
	c.subscribe("default", "ROOTCA")
	c.expect([]string{"ROOTCA", "default"}, nil)
	src.fail(status.Error(codes.PermissionDenied, "no identity issued"))
	c.expect(nil, []string{"ROOTCA", "default"})
	src.set(contextOf([]*x509svid.SVID{svid}, one))
	c.expect([]string{"ROOTCA", "default"}, nil)
}

func TestSDSDeltaKeepsSecretsWhileTheSourceIsAway(t *testing.T) {
	one := testca.New(t, "one.test")
	src := newSource()
	src.set(contextOf([]*x509svid.SVID{one.SVID(t, ownID)}, one))
	c := dialDelta(t, serveSource(t, src, Options{}))
	c.subscribe("default")
	c.expect([]string{"default"}, nil)
	src.fail(status.Error(codes.Unavailable, "not synced yet"))
	c.subscribe("ROOTCA") // answered from what was last known
	c.expect([]string{"ROOTCA"}, nil)
	src.set(contextOf([]*x509svid.SVID{one.SVID(t, ownID)}, one))
	c.expect([]string{"default"}, nil)
}

func TestSDSDeltaSubscribesAndUnsubscribes(t *testing.T) {
	one := testca.New(t, "one.test")
	src := newSource()
	src.set(contextOf([]*x509svid.SVID{one.SVID(t, ownID)}, one))
	c := dialDelta(t, serveSource(t, src, Options{}))
	c.subscribe("default", "ROOTCA")
	c.expect([]string{"ROOTCA", "default"}, nil)
	// Asked for again, answered again, though nothing changed.
	c.subscribe("default")
	c.expect([]string{"default"}, nil)
	// With a stale nonce, too: only the acknowledgement in it is stale.
	c.send(&discoveryv3.DeltaDiscoveryRequest{ResponseNonce: "1", ResourceNamesUnsubscribe: []string{"default"}})
	c.send(&discoveryv3.DeltaDiscoveryRequest{ResponseNonce: "1", ResourceNamesSubscribe: []string{"ALL"}})
	c.expect([]string{"ALL"}, nil)
	src.set(contextOf([]*x509svid.SVID{one.SVID(t, ownID)}, one)) // nobody wants the SVID
	c.send(&discoveryv3.DeltaDiscoveryRequest{
		ResourceNamesSubscribe: []string{ownDomain}, ResourceNamesUnsubscribe: []string{ownDomain},
	})
	c.expect([]string{ownDomain}, nil)
}

func TestSDSDeltaResumesFromTheVersionsAClientHolds(t *testing.T) {
	one, two := testca.New(t, "one.test"), testca.New(t, "two.test")
	web := one.SVID(t, ownID)
	src := newSource()
	src.set(contextOf([]*x509svid.SVID{web}, one, two))
	client := serveSource(t, src, Options{})
	c := dialDelta(t, client)
	names := []string{"default", "ROOTCA", farDomain}
	c.subscribe(names...)
	c.expect([]string{"ROOTCA", "default", farDomain}, nil)
	held := make(map[string]string)
	for _, r := range c.last.GetResources() {
		held[r.GetName()] = r.GetVersion()
	}
	check(t, c.stream.CloseSend())

	// While it was away: the SVID rotated, the federation ended.
	src.set(contextOf([]*x509svid.SVID{one.SVID(t, ownID)}, one))
	c = dialDelta(t, client)
	c.send(&discoveryv3.DeltaDiscoveryRequest{ResourceNamesSubscribe: names, InitialResourceVersions: held})
	c.expect([]string{"default"}, []string{farDomain})
}

func TestSDSDeltaRemovesNothingBeforeTheSourceHasSpoken(t *testing.T) {
	one := testca.New(t, "one.test")
	src := newSource()
	src.fail(status.Error(codes.Unavailable, "not synced yet"))
	c := dialDelta(t, serveSource(t, src, Options{}))
	c.send(&discoveryv3.DeltaDiscoveryRequest{
		ResourceNamesSubscribe: []string{"default"}, InitialResourceVersions: map[string]string{"default": "old"},
	})
	src.set(contextOf([]*x509svid.SVID{one.SVID(t, ownID)}, one))
	c.expect([]string{"default"}, nil)
}

func TestSDSDeltaRejectionIsNotRepeated(t *testing.T) {
	one := testca.New(t, "one.test")
	var log logBuffer
	src := newSource()
	src.set(contextOf([]*x509svid.SVID{one.SVID(t, ownID)}, one))
	c := dialDelta(t, serveSource(t, src, Options{Log: log.logger()}))
	c.subscribe("default")
	c.expect([]string{"default"}, nil)
	for range 3 {
		c.send(&discoveryv3.DeltaDiscoveryRequest{
			ResponseNonce: c.last.GetNonce(), ErrorDetail: &rpcstatus.Status{Message: "bad key"},
		})
	}
	c.subscribe("ROOTCA")
	c.expect([]string{"ROOTCA"}, nil)
	wantLogged(t, &log, "bad key", 1)
}

func TestSDSDeltaWildcard(t *testing.T) {
	one, two := testca.New(t, "one.test"), testca.New(t, "two.test")
	web := one.SVID(t, ownID)
	src := newSource()
	src.set(contextOf([]*x509svid.SVID{web}, one, two))
	c := dialDelta(t, serveSource(t, src, Options{}))
	c.subscribe()
	c.expect([]string{ownDomain, ownID, farDomain}, nil)
	src.set(contextOf([]*x509svid.SVID{web}, one))
	c.expect(nil, []string{farDomain})
	c.send(&discoveryv3.DeltaDiscoveryRequest{
		ResourceNamesUnsubscribe: []string{wildcard}, ResourceNamesSubscribe: []string{"ALL"},
	})
	c.expect([]string{"ALL"}, nil)
	src.set(contextOf([]*x509svid.SVID{one.SVID(t, ownID)}, one, two))
	c.expect([]string{"ALL"}, nil)
}

// A name that only a request gave is forgotten with it; one that the wildcard
// covers, too, is answered again.
func TestSDSDeltaUnsubscribesBesideTheWildcard(t *testing.T) {
	one := testca.New(t, "one.test")
	src := newSource()
	src.set(contextOf([]*x509svid.SVID{one.SVID(t, ownID)}, one))
	c := dialDelta(t, serveSource(t, src, Options{}))
	c.subscribe(wildcard, "default", ownDomain)
	c.expect([]string{"default", ownDomain, ownID}, nil)
	c.send(&discoveryv3.DeltaDiscoveryRequest{ResourceNamesUnsubscribe: []string{"default", ownDomain}})
	c.expect([]string{ownDomain}, nil)
	src.set(contextOf([]*x509svid.SVID{one.SVID(t, ownID)}, one))
	c.expect([]string{ownID}, nil)
}

// The limits are on what a client names, not on what its caller is given.
func TestSDSDeltaWildcardOfManyIdentities(t *testing.T) {
	one := testca.New(t, "one.test")
	web := one.SVID(t, ownID)
	svids := []*x509svid.SVID{web}
	for i := range maxNames {
		id := spiffeid.RequireFromString(fmt.Sprintf("%s/%0*d", ownDomain, maxAllBytes/maxNames, i))
		svids = append(svids, &x509svid.SVID{ID: id, Certificates: web.Certificates, PrivateKey: web.PrivateKey})
	}
	src := newSource()
	src.set(contextOf(svids, one))
	c := dialDelta(t, serveSource(t, src, Options{}))
	c.subscribe()
	if resp, err := c.stream.Recv(); err != nil || len(resp.GetResources()) != maxNames+2 {
		t.Fatalf("%d secrets, %v", len(resp.GetResources()), err)
	}
	c.send(&discoveryv3.DeltaDiscoveryRequest{ResponseNonce: "1"})
	c.subscribe("default")
	c.expect([]string{"default"}, nil)
}
