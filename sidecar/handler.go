package sidecar

import (
	"cmp"
	"context"
	"net"

	"github.com/lanyard-mtls/lanyard/sidecar/inbound"
	"github.com/lanyard-mtls/lanyard/sidecar/listen"
	"github.com/lanyard-mtls/lanyard/sidecar/outbound"
	"github.com/lanyard-mtls/lanyard/sidecar/poll"
	"github.com/lanyard-mtls/lanyard/sidecar/proxyproto"
	"github.com/lanyard-mtls/lanyard/sidecar/status"
	"github.com/lanyard-mtls/lanyard/sidecar/tlsend"
	"github.com/lanyard-mtls/lanyard/sidecar/via"
)

// dialFunc connects to a tunnel's target, for the connection near, or for nobody.
type dialFunc = func(ctx context.Context, near net.Conn) (net.Conn, error)

// prepareHandler makes what brings up the connections of a tunnel.
func (s *Sidecar) prepareHandler(next *planned, src *source) error {
	t := next.cfg
	target, err := listen.Parse("target", t.Target)
	if err != nil {
		return err
	}
	dial, err := s.dialer(t, target)
	if err != nil {
		return err
	}
	ends := tlsend.Config{Policy: next.policy, NextProtos: t.ALPN, MaxVersion: t.MaxTLSVersion, CipherSuites: t.CipherSuites,
		Pins: len(t.Policy.Pins) > 0, NoClientAuth: t.Mode == Server && t.Policy.DisableAuthentication, DisableResumption: t.NoResumption,
		Tunnel: t.Name, Listen: t.Listen, Target: t.Target}
	if t.Mode == Client {
		ends.ServerName = cmp.Or(t.ServerName, target.ServerName())
		ends.VerifyName = cmp.Or(t.ServerName, host(target))
		h := outbound.New(outbound.Config{Identity: src, TLS: tlsend.NewClient(ends), Dial: dial, Buffers: &s.buffers})
		next.handler, next.probe = h, status.NewProbe(h.Probe, t.ConnectTimeout)
		return nil
	}
	balancers, err := proxyproto.ParseTrusted("accept_proxy_protocol", t.AcceptProxyProtocol)
	if err != nil {
		return err
	}
	probed := func(ctx context.Context) (net.Conn, error) { return dial(ctx, nil) }
	check := status.DialProbe(probed)
	if t.TargetStatus != "" {
		check = status.HTTPProbe(t.TargetStatus, probed)
	}
	next.probe = status.NewProbe(check, t.ConnectTimeout)
	next.handler = inbound.New(inbound.Config{Identity: src, TLS: tlsend.NewServer(ends), Dial: dial, Buffers: &s.buffers,
		SendProxy: t.ProxyProtocol, Balancers: balancers})
	return nil
}

// host is the host of a TCP address: a name or an IP address.
func host(a listen.Address) string {
	h, _, err := net.SplitHostPort(a.Address)
	if err != nil {
		return ""
	}
	return h
}

// dialer returns what connects to the target.
func (s *Sidecar) dialer(t Tunnel, target listen.Address) (dialFunc, error) {
	direct := func(near net.Conn) via.DialFunc {
		opt := poll.DialOptions{KeepAlive: t.KeepAlive, UserTimeout: t.UserTimeout, Near: near}
		return func(ctx context.Context, network, address string) (net.Conn, error) {
			return s.poller.Dial(ctx, network, address, opt)
		}
	}
	if t.Via == "" {
		return func(ctx context.Context, near net.Conn) (net.Conn, error) {
			return direct(near)(ctx, target.Network, target.Address)
		}, nil
	}
	proxy, err := via.Parse("via", t.Via)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, near net.Conn) (net.Conn, error) {
		return proxy.Dial(ctx, direct(near), target.Address)
	}, nil
}
