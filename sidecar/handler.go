package sidecar

import (
	"cmp"
	"context"
	"net"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar/inbound"
	"github.com/lanyard-mtls/lanyard/sidecar/listen"
	"github.com/lanyard-mtls/lanyard/sidecar/outbound"
	"github.com/lanyard-mtls/lanyard/sidecar/poll"
	"github.com/lanyard-mtls/lanyard/sidecar/proxyproto"
	"github.com/lanyard-mtls/lanyard/sidecar/setting"
	"github.com/lanyard-mtls/lanyard/sidecar/status"
	"github.com/lanyard-mtls/lanyard/sidecar/tlsend"
	"github.com/lanyard-mtls/lanyard/sidecar/via"
)

// dialFunc connects to a tunnel's target.
type dialFunc func(context.Context) (net.Conn, error)

// prepareHandler makes what brings up the connections of a tunnel.
func (s *Sidecar) prepareHandler(ctx context.Context, next *planned, src *source) error {
	t := next.cfg
	target, err := listen.Parse("target", t.Target)
	if err != nil {
		return err
	}
	dial, err := s.dialer(ctx, t, target)
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
	check := status.DialProbe(dial)
	if t.TargetStatus != "" {
		check = status.HTTPProbe(t.TargetStatus, dial)
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

// resolveTimeout bounds the look-up of a target's name at the start.
const resolveTimeout = 10 * time.Second

// dialer returns what connects to the target. A name that can't be resolved now
// is an error, as ghostunnel has it, unless a proxy is to resolve it.
func (s *Sidecar) dialer(ctx context.Context, t Tunnel, target listen.Address) (dialFunc, error) {
	opt := poll.DialOptions{KeepAlive: t.KeepAlive, UserTimeout: t.UserTimeout}
	direct := func(ctx context.Context, network, address string) (net.Conn, error) {
		return s.poller.Dial(ctx, network, address, opt)
	}
	if t.Via != "" {
		proxy, err := via.Parse("via", t.Via)
		if err != nil {
			return nil, err
		}
		return func(ctx context.Context) (net.Conn, error) { return proxy.Dial(ctx, direct, target.Address) }, nil
	}
	if name := host(target); target.Network == listen.TCP && !t.SkipResolve && net.ParseIP(name) == nil && name != "" {
		ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
		defer cancel()
		if _, err := net.DefaultResolver.LookupHost(ctx, name); err != nil {
			return nil, setting.Errorf("target", t.Target, "can't be resolved: %w; mend the name, or set skip_resolve", err)
		}
	}
	return func(ctx context.Context) (net.Conn, error) { return direct(ctx, target.Network, target.Address) }, nil
}
