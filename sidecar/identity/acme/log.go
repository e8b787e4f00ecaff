package acme

import (
	"context"
	"log/slog"

	"go.uber.org/zap/zapcore"
)

// core hands what certmagic logs, through zap, to slog.
type core struct {
	ctx context.Context // zap hands on none
	to  slog.Handler
}

// level is that of a line of certmagic's. Its informations are about each lock it takes.
func level(l zapcore.Level) slog.Level {
	switch {
	case l <= zapcore.InfoLevel:
		return slog.LevelDebug
	case l == zapcore.WarnLevel:
		return slog.LevelWarn
	default:
		return slog.LevelError
	}
}

// Enabled implements zapcore.Core.
func (c core) Enabled(l zapcore.Level) bool { return c.to.Enabled(c.ctx, level(l)) }

// With implements zapcore.Core.
func (c core) With(fields []zapcore.Field) zapcore.Core {
	return core{c.ctx, c.to.WithAttrs(attrs(fields))}
}

// Check implements zapcore.Core.
func (c core) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return checked.AddCore(e, c)
	}
	return checked
}

// Write implements zapcore.Core.
func (c core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	r := slog.NewRecord(e.Time, level(e.Level), "ACME: "+e.Message, 0)
	r.AddAttrs(attrs(fields)...)
	return c.to.Handle(c.ctx, r)
}

// Sync implements zapcore.Core.
func (core) Sync() error { return nil }

func attrs(fields []zapcore.Field) []slog.Attr {
	var all []slog.Attr
	for _, f := range fields {
		enc := zapcore.NewMapObjectEncoder()
		f.AddTo(enc)
		for k, v := range enc.Fields {
			all = append(all, slog.Any(k, v))
		}
	}
	return all
}
