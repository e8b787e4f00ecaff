package record

import (
	"context"
	"log/slog"
	"unicode/utf8"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Message is the message of every record.
const Message = "connection"

// What others wrote is cut to so many bytes.
const (
	maxName  = 256  // of a server name or a subject
	maxError = 1024 // of an error, which may quote a certificate
)

// Log writes the record to log, once: at level info if it ended as its ends or
// the configuration meant it to, else as a warning. Attributes with nothing to
// tell are left out, but for those that every record has.
func (r *Record) Log(ctx context.Context, log *slog.Logger) {
	level := slog.LevelWarn
	if r.Cause.expected() {
		level = slog.LevelInfo
	}
	if !log.Enabled(ctx, level) {
		return
	}
	var room [24]slog.Attr // none is allocated
	attrs := r.who(room[:0])
	attrs = r.how(attrs)
	log.LogAttrs(ctx, level, Message, attrs...)
}

func (r *Record) who(attrs []slog.Attr) []slog.Attr {
	attrs = text(attrs, "tunnel", r.Tunnel)
	attrs = append(attrs,
		slog.String("direction", string(r.Direction)),
		slog.String("cause", string(r.Cause)),
		slog.String("client", r.Client),
		slog.String("target", r.Target),
		slog.String("spiffe_id", id(r.Own)))
	if r.PeerSubject == "" || !r.Peer.IsZero() {
		attrs = append(attrs, slog.String("peer_spiffe_id", id(r.Peer)))
	}
	attrs = text(attrs, "peer_subject", cut(r.PeerSubject, maxName))
	attrs = flag(attrs, "peer_unverified", r.PeerClaimed)
	return append(attrs, slog.String("rule", r.Rule))
}

func (r *Record) how(attrs []slog.Attr) []slog.Attr {
	attrs = text(attrs, "tls_version", r.TLSVersion)
	attrs = text(attrs, "group", r.Group)
	attrs = text(attrs, "cipher", r.Cipher)
	attrs = text(attrs, "alpn", r.ALPN)
	attrs = text(attrs, "server_name", cut(r.ServerName, maxName))
	attrs = append(attrs, slog.Int64("forwarded", r.Forwarded), slog.Int64("returned", r.Returned),
		slog.Duration("duration", r.Duration()))
	if r.Handshake > 0 {
		attrs = append(attrs, slog.Duration("handshake", r.Handshake))
	}
	attrs = flag(attrs, "resumed", r.Resumed)
	attrs = flag(attrs, "drained", r.Drained)
	if r.Err != nil {
		attrs = append(attrs, slog.String("error", cut(r.Err.Error(), maxError)))
	}
	return attrs
}

func text(attrs []slog.Attr, key, value string) []slog.Attr {
	if value == "" {
		return attrs
	}
	return append(attrs, slog.String(key, value))
}

func flag(attrs []slog.Attr, key string, value bool) []slog.Attr {
	if !value {
		return attrs
	}
	return append(attrs, slog.Bool(key, true))
}

func id(id spiffeid.ID) string {
	if id.IsZero() {
		return ""
	}
	return id.String()
}

// cut shortens s to at most n bytes, not within a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
