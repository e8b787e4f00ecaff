package upstream

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
)

// poster tells the issuer this agent's version and which bundle it holds, beside
// what goes on: changes don't wait for it.
type poster struct {
	c      *Client
	kick   chan struct{} // holds one
	posted posted
}

// posted is what the issuer was told last, and over which connection: one that
// was started anew has forgotten it.
type posted struct {
	sequence uint64
	connects int64
	done     bool
}

func newPoster(c *Client) *poster { return &poster{c: c, kick: make(chan struct{}, 1)} }

// tell has the issuer told soon, if there is news.
func (p *poster) tell() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

func (p *poster) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.kick:
			p.post(ctx)
		}
	}
}

// post tells the issuer (spire.api.server.agent.v1, PostStatus) after joining and
// connecting, and when the bundle changes, which it names by its sequence number.
// A Lanyard issuer waits for it before a new authority signs; SPIRE's keeps the
// version. That it cannot be told harms nothing here.
func (p *poster) post(ctx context.Context) {
	now := posted{sequence: p.c.sequence.Load(), connects: p.c.links.connects.Load(), done: true}
	if now == p.posted {
		return
	}
	err := p.c.agentCall(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := agentv1.NewAgentClient(conn).PostStatus(ctx, &agentv1.PostStatusRequest{
			AgentVersion: p.c.cfg.Version, CurrentBundleSerial: now.sequence,
		})
		return err
	})
	if err != nil && ctx.Err() == nil {
		p.c.log.Debug("the issuer was not told this agent's status", "reason", reason(err))
		if code := status.Code(err); code != codes.Unimplemented && code != codes.InvalidArgument {
			return // next time
		}
	}
	p.posted = now
}
