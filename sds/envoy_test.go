package sds

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/internal/workload/workloadtest"
)

// TestEnvoyRotatesUnderTraffic rotates the SVIDs of two real Envoys while
// requests pass, on a kept connection and on new ones: none may fail.
func TestEnvoyRotatesUnderTraffic(t *testing.T) {
	for name, change := range map[string]func(*BootstrapOptions){
		"delta":              func(*BootstrapOptions) {},
		"state of the world": func(o *BootstrapOptions) { o.StateOfTheWorld = true },
		"plain trusted_ca":   func(o *BootstrapOptions) { o.PlainTrustedCA = true },
		"own trust domain, by ID": func(o *BootstrapOptions) {
			o.SVIDName, o.BundleName = serverID, "ALL"
			if o.Outbound != nil {
				o.SVIDName = clientID
			}
			for _, leg := range []*Leg{o.Inbound, o.Outbound} {
				if leg != nil {
					leg.TrustDomain, leg.Peers = leg.Peers[0].TrustDomain(), nil
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := startPair(t, change)
			stop := p.traffic(t)
			for range 5 {
				client, server := p.ca.SVID(t, clientID), p.ca.SVID(t, serverID)
				p.set(t, p.clientAPI, client)
				p.set(t, p.serverAPI, server)
				p.client.uses(client)
				p.server.uses(server)
				check(t, p.hello(newClient(t), true))
			}
			if n := stop(); n < 20 {
				t.Errorf("only %d requests were made", n)
			}
			for what, e := range map[string]*proxy{"client": p.client, "server": p.server} {
				if n := e.counter("sds.*update_rejected"); n != 0 {
					t.Errorf("the %s's Envoy rejected %d secrets", what, n)
				}
			}
		})
	}
}

// traffic makes requests, half on a kept connection and half on new ones, until
// the function it returns is called, which reports how many there were.
func (p *pair) traffic(t *testing.T) (stop func() int64) {
	ctx, cancel := context.WithCancel(t.Context())
	var done atomic.Int64
	var workers sync.WaitGroup
	for _, fresh := range []bool{false, true} {
		client := newClient(t)
		workers.Go(func() {
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				if err := p.hello(client, fresh); err != nil {
					t.Errorf("request %d (new connection: %v): %v", done.Load(), fresh, err)
					return
				}
				done.Add(1)
			}
		})
	}
	return func() int64 {
		cancel()
		workers.Wait()
		return done.Load()
	}
}

// TestEnvoyRefusesTheWrongPeer gives each end in turn an SVID that the other may
// not accept, and the right one again.
func TestEnvoyRefusesTheWrongPeer(t *testing.T) {
	for name, plain := range map[string]bool{"SPIFFE validator": false, "plain trusted_ca": true} {
		t.Run(name, func(t *testing.T) {
			// The bundle by its own name: an SVID of another trust domain must not
			// change what its holder accepts.
			p := startPair(t, func(o *BootstrapOptions) { o.PlainTrustedCA, o.BundleName = plain, "spiffe://one.test" })
			p.refuses(t, "client", clientID, p.clientAPI, p.client, p.server)
			p.refuses(t, "server", serverID, p.serverAPI, p.server, p.client)
		})
	}
}

func (p *pair) refuses(t *testing.T, end, id string, api *workloadtest.Server, own, refuser *proxy) {
	soon := testca.Lifetime(time.Now().Add(-time.Hour), time.Now().Add(2*time.Second))
	for _, tt := range []struct {
		what string
		svid *x509svid.SVID
	}{
		{"an SVID that expires", p.ca.SVID(t, id, soon)},
		{"another SPIFFE ID", p.ca.SVID(t, "spiffe://one.test/mallory")},
		{"its SPIFFE ID and more", p.ca.SVID(t, id+"/more")},
		{"an SVID of another trust domain", p.ca.SVID(t, "spiffe://two.test/"+end)},
		{"an SVID that another authority signed", testca.New(t, "one.test").SVID(t, id)},
	} {
		p.set(t, api, tt.svid)
		own.uses(tt.svid)
		failures := refuser.counter("ssl.fail_verify")
		eventually(t, end+" refused with "+tt.what, func() bool { return p.hello(newClient(t), true) != nil })
		if now := refuser.counter("ssl.fail_verify"); now <= failures {
			t.Errorf("the %s with %s was refused, but not for its certificate", end, tt.what)
		}
	}
	good := p.ca.SVID(t, id)
	p.set(t, api, good)
	own.uses(good)
	if err := p.hello(newClient(t), true); err != nil {
		t.Errorf("the %s, itself again, is refused: %v", end, err)
	}
}

// TestEnvoyWaitsForALateIdentity starts Envoy before there is any identity, and
// before the bridge can reach the Workload API.
func TestEnvoyWaitsForALateIdentity(t *testing.T) {
	for name, sotw := range map[string]bool{"delta": false, "state of the world": true} {
		t.Run(name, func(t *testing.T) {
			envoyBinary(t)
			ca := testca.New(t, "one.test")
			api := workloadtest.New(t)
			e := startEnvoy(t, BootstrapOptions{
				NodeID: "late", SDSSocket: startBridge(t, api), StateOfTheWorld: sotw,
				Inbound: &Leg{Listen: freeAddress(t), Target: serveHello(t), TrustDomain: ca.TrustDomain},
			})
			eventually(t, "Envoy asks for its secrets", func() bool {
				_, err := e.ask("/ready")
				return err == nil && e.counter("sds.*update_attempt") > 0
			})
			svid := ca.SVID(t, ownID)
			api.Set(t, []*x509svid.SVID{svid}, ca.Bundle())
			api.Start(t)
			e.uses(svid)
			e.ready()
		})
	}
}

// TestEnvoyLosesAndRegainsItsIdentity pins what Envoy 1.40 makes of a removed
// secret: it accepts the removal and goes on with what it had, as it does when
// the server of secrets is gone, and takes the next one.
func TestEnvoyLosesAndRegainsItsIdentity(t *testing.T) {
	p := startPair(t, func(*BootstrapOptions) {})
	taken := func() int { return p.server.counter("sds.default.update_success") }
	before := taken()
	p.serverAPI.Fail(codes.PermissionDenied)
	eventually(t, "Envoy accepts the removal", func() bool { return taken() == before+1 })
	check(t, p.hello(newClient(t), true))

	svid := p.ca.SVID(t, serverID)
	p.set(t, p.serverAPI, svid)
	p.server.uses(svid)
	check(t, p.hello(newClient(t), true))
	if n := p.server.counter("sds.*update_rejected"); n != 0 {
		t.Errorf("Envoy rejected %d updates", n)
	}
}

// TestEnvoyOutlivesTheBridge stops the bridge of the server's Envoy and starts
// another one at the same place, with a new SVID.
func TestEnvoyOutlivesTheBridge(t *testing.T) {
	ca := testca.New(t, "one.test")
	envoyBinary(t)
	api := workloadtest.Start(t, []*x509svid.SVID{ca.SVID(t, ownID)}, ca.Bundle())
	path, stop := runBridge(t, api)
	e := startEnvoy(t, BootstrapOptions{
		NodeID: "orphan", SDSSocket: path,
		Inbound: &Leg{Listen: freeAddress(t), Target: serveHello(t), TrustDomain: ca.TrustDomain},
	})
	e.ready()
	stop()
	eventually(t, "Envoy has noticed", func() bool { return e.counter("lanyard_sds.upstream_cx_destroy$") > 0 })
	e.ready()
	svid := ca.SVID(t, ownID)
	api.Set(t, []*x509svid.SVID{svid}, ca.Bundle())
	runBridge(t, api, func(c *Config) { c.SocketPath = path })
	e.uses(svid)
}
