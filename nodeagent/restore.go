package nodeagent

import (
	"context"
	"errors"
	"time"

	"github.com/lanyard-mtls/lanyard/nodeagent/keep"
)

// grace is how long the issuer has, after a start, before what was kept is
// served in its place: what changed meanwhile had better be known.
const grace = time.Second

// kept is what the agent kept of its last run.
type kept struct {
	file  *keep.File
	state *keep.State // nil: nothing that can be used
	// known is what lets callers wait for it, and no longer.
	known func()
	// served is closed when state is.
	served chan struct{}
}

// load reads what was kept. From now on callers are held until it is served, or
// the issuer's word is: it is called before anything is served.
func (p *parts) load() {
	p.kept = kept{known: func() {}, served: make(chan struct{})}
	if p.cfg.MemoryKeys {
		return
	}
	p.kept.file = keep.Open(p.cfg.DataDir)
	// Whose it is is known if the agent had joined: another's is not read.
	id := p.client.ID()
	if id.IsZero() {
		return
	}
	state, err := p.kept.file.Load(id)
	if err != nil {
		p.cfg.Log.Warn("workloads' SVIDs were kept, but can't be used", "reason", err)
	}
	if p.kept.state = state; state != nil {
		p.kept.known = p.cache.Expect()
	}
}

// keep serves what was kept of the last run, unless the issuer is there, and
// keeps what the agent knows until ctx ends. An agent that the issuer refuses, and
// that has thrown its own SVID away for it, keeps nobody's.
func (p *parts) keep(ctx context.Context) error {
	if p.kept.file == nil {
		return nil
	}
	if p.kept.state != nil {
		p.restore(ctx)
		p.kept.known()
		p.kept.state = nil
	}
	err := keep.Run(ctx, keep.Config{File: p.kept.file, Cache: p.cache, AgentID: p.client.ID, Log: p.cfg.Log})
	if p.client.ID().IsZero() {
		err = errors.Join(err, p.kept.file.Remove())
	}
	return err
}

func (p *parts) restore(ctx context.Context) {
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.upToDate:
		return
	case <-ctx.Done():
		return
	case <-p.failed:
	case <-timer.C:
	}
	p.cfg.Log.Warn("the issuer does not answer yet: serving what was known before", "as_of", p.kept.state.Saved.UTC().Format(time.RFC3339))
	p.cache.Restore(p.kept.state, time.Now())
	p.jwts.Apply(p.kept.state.JWT[p.cfg.TrustDomain])
	close(p.kept.served)
}
