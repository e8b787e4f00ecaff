package nodeagent

import (
	"context"
	"time"

	"github.com/lanyard-mtls/lanyard/nodeagent/keep"
)

// grace is how long the issuer has, after a start, before what was kept is
// served in its place: what changed meanwhile had better be known.
const grace = time.Second

// restore serves what the agent kept of its last run, unless the issuer is there.
// Then it keeps what the agent knows until ctx ends.
func (p *parts) restore(ctx context.Context) error {
	if p.cfg.MemoryKeys {
		return nil
	}
	file := keep.Open(p.cfg.DataDir)
	// Whose it is is known if the agent had joined: another's is not read.
	if id := p.client.ID(); !id.IsZero() {
		state, err := file.Load(id)
		if err != nil {
			p.cfg.Log.Warn("workloads' SVIDs were kept, but can't be used", "reason", err)
		}
		if state != nil {
			p.serveKept(ctx, state)
		}
	}
	return keep.Run(ctx, keep.Config{File: file, Cache: p.cache, AgentID: p.client.ID, Log: p.cfg.Log})
}

func (p *parts) serveKept(ctx context.Context, state *keep.State) {
	defer p.cache.Expect()()
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
	p.cfg.Log.Warn("the issuer does not answer yet: serving what was known before", "as_of", state.Saved.UTC().Format(time.RFC3339))
	p.cache.Restore(state, time.Now())
	p.jwts.Apply(state.JWT[p.cfg.TrustDomain])
	close(p.restored)
}
