package serverapi

import (
	"context"
	"net"
	"net/netip"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/peer"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/svidv1"
)

// Rates a second, each with a burst. Those of one caller are SPIRE's, which
// counts them per address: a thousand nodes behind one would be told to wait for
// one another. Ours count per network too, but only against a flood.
const (
	signRate = 500 // of one agent: SVIDs
	pushRate = 500 // of one caller: keys published
	postRate = 10  // of one agent: PostStatus

	watchRate, watchBurst = 2, 20 // of one agent: streams opened

	attestRate, attestBurst = 1, 4 // of one token, key or certificate that is shown

	networkAttestRate, networkAttestBurst = 500, 2000     // of one network: joins
	networkSignRate, networkSignBurst     = 20000, 100000 // of one network: SVIDs

	maxIdentities = 1 << 16
	maxNetworks   = 1 << 14
)

// limits are the rate limits of a TCP listener. Those that are switched off are
// nil. The admin socket has none.
type limits struct {
	csr, jwt, wit, push, post, watch *limiter[spiffeid.ID]
	attest                           *limiter[string]
	networkSign                      *limiter[netip.Prefix]
	networkAttest                    *limiter[netip.Prefix]
}

func newLimits(on Limits) *limits {
	l := &limits{
		push:  newLimiter[spiffeid.ID](pushRate, pushRate, maxIdentities),
		post:  newLimiter[spiffeid.ID](postRate, postRate, maxIdentities),
		watch: newLimiter[spiffeid.ID](watchRate, watchBurst, maxIdentities),
	}
	if on.Attestation {
		l.attest = newLimiter[string](attestRate, attestBurst, maxIdentities)
		// A stranger makes up as many as there is room for in half a minute, from
		// four networks: nodes must not share one bucket with them then. Their
		// networks' limits hold on.
		l.attest.open = true
		l.networkAttest = newLimiter[netip.Prefix](networkAttestRate, networkAttestBurst, maxNetworks)
	}
	if on.Signing {
		l.csr = newLimiter[spiffeid.ID](signRate, signRate, maxIdentities)
		l.jwt = newLimiter[spiffeid.ID](signRate, signRate, maxIdentities)
		l.wit = newLimiter[spiffeid.ID](signRate, signRate, maxIdentities)
		l.networkSign = newLimiter[netip.Prefix](networkSignRate, networkSignBurst, maxNetworks)
	}
	return l
}

// unary holds a call back as the limits of its method say. AttestAgent, whose
// first message says who calls, sees to itself.
func (l *limits) unary(ctx context.Context, method string, caller Caller, req any) error {
	if l == nil || caller.Local {
		return nil
	}
	switch method {
	case svidv1.SVID_BatchNewX509SVID_FullMethodName:
		n := 0
		if req, ok := req.(*svidv1.BatchNewX509SVIDRequest); ok {
			n = len(req.GetParams())
		}
		return errLimited("rejecting request due to certificate signing rate limiting", l.sign(ctx, l.csr, caller, n))
	case svidv1.SVID_BatchNewWITSVID_FullMethodName:
		n := 0
		if req, ok := req.(*svidv1.BatchNewWITSVIDRequest); ok {
			n = len(req.GetParams())
		}
		return errLimited("rejecting request due to certificate signing rate limiting", l.sign(ctx, l.wit, caller, n))
	case svidv1.SVID_NewJWTSVID_FullMethodName:
		return errLimited("rejecting request due to JWT signing request rate limiting", l.sign(ctx, l.jwt, caller, 1))
	case svidv1.SVID_NewDownstreamX509CA_FullMethodName:
		return errLimited("rejecting request due to downstream CA signing rate limit", l.sign(ctx, l.csr, caller, 1))
	case agentv1.Agent_RenewAgent_FullMethodName:
		return errLimited("rejecting request due to renew agent rate limiting", l.sign(ctx, l.csr, caller, 1))
	case agentv1.Agent_PostStatus_FullMethodName:
		return errLimited("rejecting request due to post status rate limiting", l.post.wait(ctx, caller.ID, 1))
	case bundlev1.Bundle_PublishJWTAuthority_FullMethodName, bundlev1.Bundle_PublishWITAuthority_FullMethodName:
		return errLimited("rejecting request due to key publishing rate limiting", l.push.wait(ctx, caller.ID, 1))
	}
	return nil
}

func (l *limits) sign(ctx context.Context, own *limiter[spiffeid.ID], caller Caller, n int) error {
	if own == nil || n == 0 {
		return nil
	}
	if err := own.wait(ctx, caller.ID, n); err != nil {
		return err
	}
	return l.networkSign.wait(ctx, network(peerAddr(ctx)), n)
}

const attestLimited = "rejecting request due to attest agent rate limiting"

// join holds an attempt to join back: by its network alone while key, which
// names who it claims to be, is not known yet.
func (l *limits) join(ctx context.Context, key string) error {
	switch {
	case l == nil || l.attest == nil || CallerFrom(ctx).Local:
		return nil
	case key == "":
		return errLimited(attestLimited, l.networkAttest.wait(ctx, network(peerAddr(ctx)), 1))
	default:
		return errLimited(attestLimited, l.attest.wait(ctx, key, 1))
	}
}

// network is what an address is counted as part of: an IPv4 /24, or an IPv6 /48,
// the least that one site has. It is zero for what is no IP address.
func network(addr netip.Addr) netip.Prefix {
	bits := 48
	if addr.Is4() {
		bits = 24
	}
	prefix, err := addr.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}

// peerAddr is the address of the caller's socket or, behind a trusted proxy, the
// one that the proxy tells; the zero Addr if it is not an IP address.
func peerAddr(ctx context.Context) netip.Addr {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return netip.Addr{}
	}
	tcp, ok := p.Addr.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap()
}
