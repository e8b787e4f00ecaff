package upstream

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
)

// posted is what the issuer was told last, and over which connection: one that
// was started anew has forgotten it.
type posted struct {
	sequence uint64
	connects int64
	done     bool
}

// post tells the issuer this agent's version and which bundle it holds, by
// its sequence number (spire.api.server.agent.v1, PostStatus): after joining
// and connecting, and when the bundle changes. A Lanyard issuer waits for it
// before a new authority signs; SPIRE's keeps the version. That it cannot be told
// harms nothing here.
func (p *poller) post(ctx context.Context) {
	now := posted{sequence: p.sequence, connects: p.c.links.connects.Load(), done: true}
	if now == p.posted {
		return
	}
	err := p.c.agentCall(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := agentv1.NewAgentClient(conn).PostStatus(ctx, &agentv1.PostStatusRequest{
			AgentVersion: p.c.cfg.Version, CurrentBundleSerial: p.sequence,
		})
		return err
	})
	if err != nil {
		p.c.log.Debug("the issuer was not told this agent's status", "reason", err)
		if code := status.Code(err); code != codes.Unimplemented && code != codes.InvalidArgument {
			return // next time
		}
	}
	p.posted = now
}
