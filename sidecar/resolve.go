package sidecar

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar/listen"
	"github.com/lanyard-mtls/lanyard/sidecar/setting"
)

// resolveTimeout bounds the look-up of all targets' names together.
const resolveTimeout = 10 * time.Second

// resolveTargets returns an error for each target whose name can't be resolved
// now, as ghostunnel has it, but for those of tunnels that are in use as they are.
func (c Config) resolveTargets(ctx context.Context, has []Tunnel) error {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	errs := make([]error, len(c.Tunnels))
	var lookups sync.WaitGroup
	for i, t := range c.Tunnels {
		if !slices.ContainsFunc(has, func(o Tunnel) bool { return o.Target == t.Target && o.Via == t.Via && o.SkipResolve == t.SkipResolve }) {
			lookups.Go(func() { errs[i] = setting.In(t.Name, t.resolveTarget(ctx)) })
		}
	}
	lookups.Wait()
	return errors.Join(errs...)
}

// resolveTarget looks up the names in t's target: that of its port, and that of
// its host, unless a proxy is to do that.
func (t Tunnel) resolveTarget(ctx context.Context) error {
	target, err := listen.Parse("target", t.Target)
	if err != nil {
		return err
	}
	if _, err := target.Port(); err != nil {
		return setting.Errorf("target", t.Target, "its port is not in /etc/services: give a number")
	}
	name := host(target)
	if t.Via != "" || t.SkipResolve || target.Network != listen.TCP || name == "" || net.ParseIP(name) != nil {
		return nil
	}
	if _, err := net.DefaultResolver.LookupHost(ctx, name); err != nil {
		return setting.Errorf("target", t.Target, "can't be resolved: %w; mend the name, or set skip_resolve", err)
	}
	return nil
}
