package sidecar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/lanyard-mtls/lanyard/sidecar/identity"
)

// source is where one or more tunnels have their identity from.
type source struct {
	identity.Source
	key     string
	life    context.Context // ends with its use; nil before it
	end     context.CancelFunc
	ended   chan struct{} // closed when nothing runs any more
	failure atomic.Pointer[error]
}

// prepareSource returns the source of t's identity: that of another tunnel, the
// one in use, or a new one, loaded.
func (s *Sidecar) prepareSource(ctx context.Context, p *plan, t Tunnel) (*source, error) {
	key := t.Identity.SourceKey()
	if src := p.sources[key]; src != nil {
		return src, nil
	}
	if src := s.sources[key]; src != nil && src.failed() == nil {
		p.sources[key] = src
		return src, nil
	}
	deps := s.cfg.Deps.Identity
	deps.Log = s.log
	from, err := identity.New(t.Identity, deps)
	if err != nil {
		return nil, err
	}
	if err := from.Load(ctx); err != nil {
		return nil, err
	}
	src := &source{Source: from, key: key, ended: make(chan struct{})}
	p.sources[key] = src
	return src, nil
}

// run keeps the identity fresh until stop, or until there will never be one; then
// it calls lost.
func (src *source) run(ctx context.Context, lost func()) {
	src.life, src.end = context.WithCancel(ctx)
	go func() {
		defer close(src.ended)
		defer src.end()
		err := src.Run(src.life)
		if err == nil || src.life.Err() != nil {
			return
		}
		src.failure.Store(&err)
		lost()
	}()
}

// stop ends run, and waits for that. A source that never ran does so for its end
// only, where it gives back what it loaded.
func (src *source) stop(ctx context.Context) {
	if src.life == nil {
		over, cancel := context.WithCancel(ctx)
		cancel()
		src.run(over, func() {})
	}
	src.end()
	<-src.ended
}

// errNotKept is why nobody waits for an identity that nothing will bring.
var errNotKept = errors.New("its tunnel has another one now, or none")

// Wait is that of the Source, but for as long as something runs at most.
func (src *source) Wait(ctx context.Context) (*identity.Identity, error) {
	if id, err := src.Current(); err == nil {
		return id, nil
	}
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(src.life, cancel)()
	id, err := src.Source.Wait(waiting)
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", err, cmp.Or(src.failed(), errNotKept))
	}
	return id, err
}

// Status is that of the Source, and why there will be no better one.
func (src *source) Status() identity.Status {
	s := src.Source.Status()
	if err := src.failed(); err != nil {
		s.Connected, s.ConnectionErr = false, err
	}
	return s
}

// failed is why there will never be an identity; nil if there may be.
func (src *source) failed() error {
	if err := src.failure.Load(); err != nil {
		return *err
	}
	return nil
}

// giveUp is for a source that will never have an identity. The others' tunnels go
// on; where there is no other, the sidecar ends.
func (s *Sidecar) giveUp(src *source) {
	s.log.Error("an identity is given up, and its tunnels refuse every connection: reload to try again", "source", src.Status().Source, "error", src.failed())
	s.endIfNobodyServes()
}

func (s *Sidecar) endIfNobodyServes() {
	v := s.view.Load()
	if v == nil {
		return // it is looked at again once there is one
	}
	var errs []error
	for _, u := range v.identities {
		err := u.failed()
		if err == nil {
			return
		}
		errs = append(errs, fmt.Errorf("identity: %w", err))
	}
	s.fail(errors.Join(errs...))
}
