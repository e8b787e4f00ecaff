package policy

import (
	"context"
	"log/slog"
)

// reporter logs decisions.
type reporter struct{ log *slog.Logger }

// report logs d at level debug and returns it.
func (o reporter) report(ctx context.Context, r Request, d Decision) Decision {
	if o.log == nil || !o.log.Enabled(ctx, slog.LevelDebug) {
		return d
	}
	attrs := []slog.Attr{slog.Bool("allowed", d.Allowed), slog.String("rule", d.Rule)}
	if !r.Peer.IsZero() {
		attrs = append(attrs, slog.String("peer_spiffe_id", r.Peer.String()))
	}
	if r.Tunnel != "" {
		attrs = append(attrs, slog.String("tunnel", r.Tunnel))
	}
	if d.Reason != "" {
		attrs = append(attrs, slog.String("reason", d.Reason))
	}
	o.log.LogAttrs(ctx, slog.LevelDebug, "policy decision", attrs...)
	return d
}
