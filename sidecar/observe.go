package sidecar

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar/accept"
	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/listen"
	"github.com/lanyard-mtls/lanyard/sidecar/metrics"
	"github.com/lanyard-mtls/lanyard/sidecar/status"
)

// view is what the status port and the metrics see of a configuration in use. It
// is immutable, so that looking never waits for a reload.
type view struct {
	tunnels    []viewed
	identities []using
}

type viewed struct {
	cfg   Tunnel
	loop  *accept.Loop
	probe *status.Probe
}

// using is a source of identities and the tunnels that use it.
type using struct {
	*source
	tunnels []string
}

// show makes what is in use now visible; s.mu is held.
func (s *Sidecar) show() {
	v := &view{}
	at := map[string]int{}
	for _, c := range s.cfg.Tunnels {
		socket, _, err := c.socket()
		if err != nil {
			continue
		}
		t := s.tunnels[socket]
		v.tunnels = append(v.tunnels, viewed{c, t.loop, t.probe})
		key := c.Identity.SourceKey()
		i, ok := at[key]
		if !ok {
			i = len(v.identities)
			at[key] = i
			v.identities = append(v.identities, using{source: s.sources[key]})
		}
		v.identities[i].tunnels = append(v.identities[i].tunnels, c.Name)
	}
	s.view.Store(v)
	s.endIfNobodyServes()
}

func (s *Sidecar) tunnelStatus() []status.Tunnel {
	v := s.view.Load()
	if v == nil {
		return nil
	}
	var list []status.Tunnel
	for _, t := range v.tunnels {
		list = append(list, status.Tunnel{Name: t.cfg.Name, Direction: t.cfg.Mode.Direction(), Listen: t.cfg.Listen, Target: t.cfg.Target,
			Connections: t.loop.Open(), Handshakes: t.loop.Handshakes(), Draining: t.loop.Draining(), Probe: t.probe})
	}
	return list
}

func (s *Sidecar) identities() []metrics.IdentityStatus {
	v := s.view.Load()
	if v == nil {
		return nil
	}
	var list []metrics.IdentityStatus
	for _, u := range v.identities {
		list = append(list, metrics.IdentityStatus{Tunnels: u.tunnels, Status: u.Status()})
	}
	return list
}

// newStatus returns the status server; only bindStatus makes it reachable.
func (s *Sidecar) newStatus() *status.Server {
	c := status.Config{Tunnels: s.tunnelStatus, Identities: s.identities, Metrics: s.metrics.Handlers(), PProf: s.cfg.Status.PProf,
		Revision: s.cfg.Revision, Log: s.log, Changed: s.tellSystemd}
	if len(s.cfg.Tunnels) > 0 {
		c.HeaderTimeout = s.cfg.Tunnels[0].ConnectTimeout
	}
	if s.cfg.Status.Shutdown {
		c.Shutdown = s.Shutdown
	}
	if addr, err := listen.ParseStatus("status", s.cfg.Status.Listen); err == nil {
		if https, err := status.UsesHTTPS("status", addr, s.cfg.hasCertificate()); err == nil && https {
			c.GetCertificate, s.https = s.statusCertificate, true
		}
	}
	return status.New(c)
}

func (c Config) hasCertificate() bool {
	return slices.ContainsFunc(c.Tunnels, func(t Tunnel) bool { return !t.Identity.None })
}

// statusCertificate is that of the first tunnel that has one. When it has expired
// it is still shown: nobody should take the sidecar's word for who it is then, but
// an expired identity is what the status port has to tell of.
func (s *Sidecar) statusCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	err := errors.New("no identity yet")
	v := s.view.Load()
	if v == nil {
		return nil, err
	}
	for _, u := range v.identities {
		id, currentErr := u.Current()
		if currentErr != nil {
			err = currentErr
			continue
		}
		if cert := id.Certificate(); cert != nil {
			s.shown.Store(cert)
			return cert, nil
		}
	}
	if cert := s.shown.Load(); cert != nil && errors.Is(err, identity.ErrExpired) {
		return cert, nil
	}
	return nil, err
}

// bindStatus opens the status port; it returns nil if there is to be none.
func (s *Sidecar) bindStatus(ctx context.Context) (net.Listener, error) {
	if s.cfg.Status.Listen == "" {
		return nil, nil
	}
	addr, err := listen.ParseStatus("status", s.cfg.Status.Listen)
	if err != nil {
		return nil, err
	}
	return listen.Listen(ctx, addr.Address, listen.Options{Key: "status", Inherited: s.inherited})
}

// tellSystemd passes phases on. What systemd does not hear is no reason to stop.
func (s *Sidecar) tellSystemd(p status.Phase) {
	var err error
	switch p {
	case status.Listening:
		err = s.notify.Ready("listening")
	case status.Reloading:
		err = s.notify.Reloading("reloading")
	case status.Stopping:
		err = s.notify.Stopping("stopping")
	}
	if err != nil {
		s.log.Warn("systemd is not told", "phase", string(p), "error", err)
	}
}

// watchdog tells systemd that the process is alive as long as it can take its
// own lock, and so could be reloaded and stopped.
func (s *Sidecar) watchdog(ctx context.Context) {
	alive := func() bool {
		for range 20 {
			if s.mu.TryLock() {
				s.mu.Unlock()
				return true
			}
			time.Sleep(50 * time.Millisecond) // a reload holds it, and may read slow files
		}
		return false
	}
	s.notify.Watchdog(ctx, alive, func(err error) { s.log.Warn("systemd's watchdog is not fed", "error", err) })
}
