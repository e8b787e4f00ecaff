package sds

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/internal/workload"
)

func manyNames(n, size int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%0*d", size, i)
	}
	return names
}

func TestSDSHostileRequestsAreRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		typeURL string
		names   []string
		want    string
	}{
		"another type":   {"type.googleapis.com/envoy.config.listener.v3.Listener", nil, "is not served here"},
		"huge type":      {strings.Repeat("x", 1<<20), nil, "is not served here"},
		"empty name":     {"", []string{""}, "a resource name is empty"},
		"huge name":      {"", []string{strings.Repeat("x", 1<<20)}, "is 1048576 bytes long, the limit is 2048"},
		"many names":     {secretType, manyNames(1001, 8), "1001 resource names on one stream, the limit is 1000"},
		"names too long": {secretType, manyNames(100, 2000), "200000 bytes of resource names on one stream, the limit is 65536"},
	} {
		t.Run(name, func(t *testing.T) {
			src := newSource()
			client := serveSource(t, src, Options{})
			sotw := dialSotW(t, client)
			sotw.send(&discoveryv3.DiscoveryRequest{TypeUrl: tt.typeURL, ResourceNames: tt.names})
			_, err := sotw.stream.Recv()
			wantCode(t, err, codes.InvalidArgument, tt.want)
			if len(err.Error()) > 2000 {
				t.Errorf("the error is %d bytes long", len(err.Error()))
			}
			delta := dialDelta(t, client)
			delta.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: tt.typeURL, ResourceNamesSubscribe: tt.names})
			_, err = delta.stream.Recv()
			wantCode(t, err, codes.InvalidArgument, tt.want)
			_, err = client.FetchSecrets(t.Context(), &discoveryv3.DiscoveryRequest{TypeUrl: tt.typeURL, ResourceNames: tt.names})
			wantCode(t, err, codes.InvalidArgument, tt.want)
			if n := src.asked(); n != 0 {
				t.Errorf("the source was asked %d times", n)
			}
		})
	}
}

func TestSDSDeltaCountsAllNamesOfAStream(t *testing.T) {
	c := dialDelta(t, serveSource(t, newSource(), Options{}))
	names := manyNames(1001, 8)
	c.subscribe(names[:600]...)
	c.subscribe(names[:600]...) // the same ones are no more
	c.subscribe(names[600:]...)
	_, err := c.stream.Recv()
	wantCode(t, err, codes.InvalidArgument, "1001 resource names on one stream")
}

func TestSDSFetch(t *testing.T) {
	one, two := testca.New(t, "one.test"), testca.New(t, "two.test")
	src := newSource()
	client := serveSource(t, src, Options{})
	fetch := func(names ...string) (*discoveryv3.DiscoveryResponse, error) {
		return client.FetchSecrets(t.Context(), &discoveryv3.DiscoveryRequest{TypeUrl: secretType, ResourceNames: names})
	}
	src.fail(status.Error(codes.PermissionDenied, "no identity issued"))
	_, err := fetch("default")
	wantCode(t, err, codes.PermissionDenied, "no identity issued")
	src.fail(fmt.Errorf("no idea"))
	_, err = fetch("default")
	wantCode(t, err, codes.Unavailable, "no idea")

	src.set(contextOf([]*x509svid.SVID{one.SVID(t, ownID)}, one, two))
	resp, err := fetch("default", "ALL")
	check(t, err)
	wantNames(t, secretsOf(t, resp.GetResources()), "default", "ALL")
	resp, err = fetch()
	check(t, err)
	wantNames(t, secretsOf(t, resp.GetResources()), ownID, ownDomain, farDomain)
	_, err = fetch("default", "x", secondID)
	wantCode(t, err, codes.InvalidArgument, fmt.Sprintf("not authorized for the requested identities [%q %q]", secondID, "x"))
}

// TestSDSSourceIsAskedAgain runs an hour in which the caller has no identity.
func TestSDSSourceIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logBuffer
		src := newSource()
		src.fail(status.Error(codes.PermissionDenied, "no identity issued"))
		svc := newService(src, Options{Log: log.logger()})
		var sent []*discoveryv3.DiscoveryResponse
		st := newStateOfTheWorld(svc.newSession("test"), func(r *discoveryv3.DiscoveryResponse) error {
			sent = append(sent, r)
			return nil
		})
		check(t, st.receive(&discoveryv3.DiscoveryRequest{ResourceNames: []string{"default"}}))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); svc.watch(ctx, st.session) }()

		time.Sleep(time.Hour) // of the bubble's clock
		if n := src.asked(); n < 3600/5 || n > 2*3600/5+20 {
			t.Errorf("asked %d times in an hour", n)
		}
		wantLogged(t, &log, "no identity issued", 1)
		one := testca.New(t, "one.test", testca.Lifetime(time.Now(), time.Now().Add(time.Hour)))
		src.set(contextOf([]*x509svid.SVID{one.SVID(t, ownID)}, one))
		time.Sleep(maxRetry)
		synctest.Wait()
		if len(sent) != 1 {
			t.Errorf("%d responses, want one", len(sent))
		}
		cancel()
		<-done
		st.close()
	})
}

// FuzzRequests feeds requests to a stream of each kind. Whatever they hold, the
// stream goes on or ends with InvalidArgument, answers are never empty, and
// what a stream remembers is bounded.
func FuzzRequests(f *testing.F) {
	for _, m := range []proto.Message{
		&discoveryv3.DiscoveryRequest{TypeUrl: secretType, ResourceNames: []string{"default", "ALL", ownID}},
		&discoveryv3.DiscoveryRequest{ResourceNames: []string{"default"}, ResponseNonce: "1", VersionInfo: "x"},
		&discoveryv3.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{"*", "ROOTCA"}},
		&discoveryv3.DeltaDiscoveryRequest{ResponseNonce: "1", ResourceNamesUnsubscribe: []string{"*", ownDomain}},
		&discoveryv3.DeltaDiscoveryRequest{InitialResourceVersions: map[string]string{"default": "x", "y": ""}},
	} {
		b, err := proto.Marshal(m)
		check(f, err)
		f.Add(b, []byte{})
		f.Add(b, b)
	}
	ca := testca.New(f, "one.test")
	first := contextOf([]*x509svid.SVID{ca.SVID(f, ownID)}, ca)
	second := contextOf([]*x509svid.SVID{ca.SVID(f, secondID)}, ca, testca.New(f, "two.test"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		svc := newService(newSource(), Options{})
		sotw := newStateOfTheWorld(svc.newSession("sotw"), func(r *discoveryv3.DiscoveryResponse) error {
			if len(r.GetResources()) == 0 || r.GetNonce() == "" || r.GetVersionInfo() == "" {
				t.Errorf("sent %v", r)
			}
			return nil
		})
		delta := newDelta(svc.newSession("delta"), func(r *discoveryv3.DeltaDiscoveryResponse) error {
			if len(r.GetResources())+len(r.GetRemovedResources()) == 0 || r.GetNonce() == "" {
				t.Errorf("sent %v", r)
			}
			return nil
		})
		for _, c := range []*workload.X509Context{first, second, {}} {
			for _, data := range [][]byte{a, b} {
				feed(t, data, new(discoveryv3.DiscoveryRequest), sotw.receive)
				feed(t, data, new(discoveryv3.DeltaDiscoveryRequest), delta.receive)
			}
			for _, ses := range []*session{sotw.session, delta.session} {
				check(t, ses.update(c))
				sent := ses.sent
				check(t, ses.update(c))
				if ses.sent != sent {
					t.Error("the same context was answered twice")
				}
				// What a client names, and what one with a wildcard said it holds.
				if n := len(ses.ledger.wants); n > 2*maxNames+10 {
					t.Errorf("%d names are remembered", n)
				}
			}
		}
		sotw.close()
		delta.close()
		if len(svc.catalogs.in) != 0 {
			t.Error("a catalog is left")
		}
	})
}

func feed[M proto.Message](t *testing.T, data []byte, m M, receive func(M) error) {
	if proto.Unmarshal(data, m) != nil {
		return
	}
	if err := receive(m); err != nil && status.Code(err) != codes.InvalidArgument {
		t.Errorf("got %v", err)
	}
}
