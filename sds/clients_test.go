package sds

import (
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"github.com/google/go-cmp/cmp"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/anypb"
)

// sotwClient is a state-of-the-world client that remembers what it must echo.
type sotwClient struct {
	t      testing.TB
	stream grpc.BidiStreamingClient[discoveryv3.DiscoveryRequest, discoveryv3.DiscoveryResponse]
	last   *discoveryv3.DiscoveryResponse
}

func dialSotW(t testing.TB, client secretv3.SecretDiscoveryServiceClient) *sotwClient {
	t.Helper()
	stream, err := client.StreamSecrets(t.Context())
	check(t, err)
	return &sotwClient{t: t, stream: stream}
}

func (c *sotwClient) send(req *discoveryv3.DiscoveryRequest) {
	c.t.Helper()
	check(c.t, c.stream.Send(req))
}

// want subscribes, or acknowledges with a new subscription.
func (c *sotwClient) want(names ...string) {
	c.t.Helper()
	c.send(&discoveryv3.DiscoveryRequest{
		Node: &corev3.Node{Id: "test"}, TypeUrl: secretType, ResourceNames: names,
		VersionInfo: c.last.GetVersionInfo(), ResponseNonce: c.last.GetNonce(),
	})
}

func (c *sotwClient) reject(message string, names ...string) {
	c.t.Helper()
	c.send(&discoveryv3.DiscoveryRequest{
		TypeUrl: secretType, ResourceNames: names, ResponseNonce: c.last.GetNonce(),
		ErrorDetail: &rpcstatus.Status{Code: int32(codes.Internal), Message: message},
	})
}

// next receives a response and returns its secrets by name.
func (c *sotwClient) next() map[string]*tlsv3.Secret {
	c.t.Helper()
	resp, err := c.stream.Recv()
	check(c.t, err)
	if resp.GetNonce() == "" || resp.GetNonce() == c.last.GetNonce() {
		c.t.Fatalf("nonce %q after %q", resp.GetNonce(), c.last.GetNonce())
	}
	c.last = resp
	return secretsOf(c.t, resp.GetResources())
}

// deltaClient is an incremental client.
type deltaClient struct {
	t      testing.TB
	stream grpc.BidiStreamingClient[discoveryv3.DeltaDiscoveryRequest, discoveryv3.DeltaDiscoveryResponse]
	last   *discoveryv3.DeltaDiscoveryResponse
}

func dialDelta(t testing.TB, client secretv3.SecretDiscoveryServiceClient) *deltaClient {
	t.Helper()
	stream, err := client.DeltaSecrets(t.Context())
	check(t, err)
	return &deltaClient{t: t, stream: stream}
}

func (c *deltaClient) send(req *discoveryv3.DeltaDiscoveryRequest) {
	c.t.Helper()
	check(c.t, c.stream.Send(req))
}

func (c *deltaClient) subscribe(names ...string) {
	c.t.Helper()
	c.send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "test"}, ResourceNamesSubscribe: names})
}

func (c *deltaClient) ack() {
	c.t.Helper()
	c.send(&discoveryv3.DeltaDiscoveryRequest{ResponseNonce: c.last.GetNonce()})
}

func (c *deltaClient) next() (secrets map[string]*tlsv3.Secret, removed []string) {
	c.t.Helper()
	resp, err := c.stream.Recv()
	check(c.t, err)
	if resp.GetNonce() == "" || resp.GetNonce() == c.last.GetNonce() {
		c.t.Fatalf("nonce %q after %q", resp.GetNonce(), c.last.GetNonce())
	}
	c.last = resp
	var bodies []*anypb.Any
	for _, r := range resp.GetResources() {
		bodies = append(bodies, r.GetResource())
	}
	return secretsOf(c.t, bodies), resp.GetRemovedResources()
}

// expect receives a response and compares the names in it.
func (c *deltaClient) expect(changed, removed []string) map[string]*tlsv3.Secret {
	c.t.Helper()
	secrets, gone := c.next()
	if diff := cmp.Diff(changed, namesOf(secrets)); diff != "" {
		c.t.Fatalf("changed (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(removed, gone); diff != "" {
		c.t.Fatalf("removed (-want +got):\n%s", diff)
	}
	return secrets
}
