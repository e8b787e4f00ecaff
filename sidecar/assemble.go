package sidecar

import (
	"cmp"
	"context"
	"errors"
	"net"
	"reflect"
	"syscall"

	"github.com/lanyard-mtls/lanyard/sidecar/accept"
	"github.com/lanyard-mtls/lanyard/sidecar/listen"
	"github.com/lanyard-mtls/lanyard/sidecar/policy"
	"github.com/lanyard-mtls/lanyard/sidecar/setting"
	"github.com/lanyard-mtls/lanyard/sidecar/status"
)

// tunnel is one that has a listener.
type tunnel struct {
	cfg     Tunnel
	policy  policy.Policy
	handler accept.Handler
	probe   *status.Probe // of the target
	loop    *accept.Loop
	stop    context.CancelFunc // begins its end
	done    chan error         // what the loop returned
}

// plan is a configuration that everything is there for, but nothing uses yet.
type plan struct {
	cfg     Config
	sources map[string]*source
	tunnels map[string]*planned
	// what was made for it, to be given back if it comes to nothing
	listeners []net.Listener
}

// planned is a tunnel of a plan: a new one, or an old one with other settings.
type planned struct {
	cfg      Tunnel
	policy   policy.Policy
	handler  accept.Handler
	probe    *status.Probe
	listener net.Listener // nil: the old one's
}

// prepare reads and binds everything that cfg asks for and is not there yet. If
// something can't be had, nothing has changed. s.mu is held.
func (s *Sidecar) prepare(ctx context.Context, cfg Config) (*plan, error) {
	p := &plan{cfg: cfg, sources: map[string]*source{}, tunnels: map[string]*planned{}}
	var errs []error
	for _, t := range cfg.Tunnels {
		errs = append(errs, setting.In(t.Name, s.prepareTunnel(ctx, p, t)))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(err, s.undo(ctx, p))
	}
	return p, nil
}

// undo gives back what was made for p alone; s.mu is held.
func (s *Sidecar) undo(ctx context.Context, p *plan) error {
	var errs []error
	for _, l := range p.listeners {
		errs = append(errs, l.Close())
	}
	for key, src := range p.sources {
		if s.sources[key] != src {
			src.stop(ctx)
		}
	}
	return errors.Join(errs...)
}

func (s *Sidecar) prepareTunnel(ctx context.Context, p *plan, t Tunnel) error {
	key, addr, err := t.socket()
	if err != nil {
		return err
	}
	src, err := s.prepareSource(ctx, p, t)
	if err != nil {
		return err
	}
	next := &planned{cfg: t}
	p.tunnels[key] = next
	old := s.tunnels[key]
	if old != nil && old.cfg.same(t) && src == s.sources[src.key] {
		next.policy, next.handler, next.probe = old.policy, old.handler, old.probe // sessions may be resumed
		return nil
	}
	if next.policy, err = s.preparePolicy(ctx, t); err != nil {
		return err
	}
	if err := s.prepareHandler(next, src); err != nil {
		return err
	}
	if old != nil {
		return old.cfg.sameSocket(t)
	}
	if next.listener, err = s.bind(ctx, addr, t); err == nil {
		p.listeners = append(p.listeners, next.listener)
	}
	return err
}

// same reports whether what serves t can serve next as it is. What is in a file
// may have changed: a policy is read anew, so that a reload which fails elsewhere
// leaves the old one as it is.
func (t Tunnel) same(next Tunnel) bool {
	return t.Policy.Rego == (policy.Rego{}) && reflect.DeepEqual(t, next)
}

// socket returns the address that t listens on, and a key: one tunnel can have
// the listener of another if theirs are equal. Each port 0 is another port.
func (t Tunnel) socket() (key string, addr listen.Address, err error) {
	if addr, err = listen.Parse("listen", t.Listen); err != nil {
		return "", addr, err
	}
	key = addr.Key()
	if port, err := addr.Port(); addr.Network == listen.TCP && err == nil && port == 0 {
		key += " of " + t.Name
	}
	return key, addr, nil
}

// sameSocket returns an error if a listener of t can't serve for next.
func (t Tunnel) sameSocket(next Tunnel) error {
	var errs []error
	for _, s := range []struct {
		key     string
		changed bool
	}{
		{"socket_mode", t.SocketMode != next.SocketMode}, {"reuse_port", t.ReusePort != next.ReusePort},
		{"keep_alive", t.KeepAlive != next.KeepAlive}, {"user_timeout", t.UserTimeout != next.UserTimeout},
	} {
		if s.changed {
			errs = append(errs, setting.Errorf(s.key, "", "can't change while %s stays open: change listen too, or restart", t.Listen))
		}
	}
	return errors.Join(errs...)
}

func (s *Sidecar) preparePolicy(ctx context.Context, t Tunnel) (policy.Policy, error) {
	rules, err := policy.Compile(t.Policy, s.cfg.Deps.Policy)
	if err != nil {
		return nil, err
	}
	return rules, policy.Reload(ctx, rules)
}

func (s *Sidecar) bind(ctx context.Context, addr listen.Address, t Tunnel) (net.Listener, error) {
	l, err := listen.Listen(ctx, addr, listen.Options{Key: "listen", SocketMode: t.SocketMode, ReusePort: t.ReusePort,
		KeepAlive: t.KeepAlive, UserTimeout: t.UserTimeout, Inherited: s.inherited})
	if err != nil {
		return nil, cmp.Or(s.inOurWay(addr, t, err), err)
	}
	polled, err := s.poller.Listener(l)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return polled, nil
}

// inOurWay says that addr can't be bound because this sidecar itself listens on
// an address that overlaps it; nil if that is not why.
func (s *Sidecar) inOurWay(addr listen.Address, t Tunnel, err error) error {
	if !errors.Is(err, syscall.EADDRINUSE) {
		return nil
	}
	for _, other := range s.tunnels {
		if _, has, parseErr := other.cfg.socket(); parseErr == nil && listen.Conflicts(addr, has) {
			return setting.Errorf("listen", t.Listen, "overlaps %s, which tunnel %q has until this change is made: reload without that tunnel first, or restart", other.cfg.Listen, other.cfg.Name)
		}
	}
	return nil
}
