package telemetry

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// terminal is a slog.Handler for people: time of day, level, message, then the attributes.
//
//	15:04:05 INFO  issuer is ready  addr=127.0.0.1:8081
type terminal struct {
	mu    *sync.Mutex // guards w, shared by all handlers made of the first
	w     io.Writer
	level slog.Leveler
	attrs string // of With, formatted
	group string // prefix of keys, "a.b."
}

func newTerminal(w io.Writer, opts *slog.HandlerOptions) *terminal {
	return &terminal{mu: &sync.Mutex{}, w: w, level: opts.Level}
}

// Enabled implements slog.Handler.
func (t *terminal) Enabled(_ context.Context, l slog.Level) bool { return l >= t.level.Level() }

// WithAttrs implements slog.Handler.
func (t *terminal) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *t
	var b bytes.Buffer
	for _, a := range attrs {
		appendAttr(&b, t.group, a)
	}
	c.attrs += b.String()
	return &c
}

// WithGroup implements slog.Handler.
func (t *terminal) WithGroup(name string) slog.Handler {
	if name == "" {
		return t
	}
	c := *t
	c.group += name + "."
	return &c
}

// Handle implements slog.Handler.
func (t *terminal) Handle(_ context.Context, r slog.Record) error {
	var b bytes.Buffer
	b.WriteString(r.Time.Format("15:04:05 "))
	b.WriteString(colour(r.Level))
	b.WriteString(printable(r.Message))
	if t.attrs != "" || r.NumAttrs() > 0 {
		b.WriteByte(' ')
	}
	b.WriteString(t.attrs)
	r.Attrs(func(a slog.Attr) bool {
		appendAttr(&b, t.group, a)
		return true
	})
	b.WriteByte('\n')
	t.mu.Lock()
	defer t.mu.Unlock()
	_, err := t.w.Write(b.Bytes())
	return err
}

// colour names a level in five columns.
func colour(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "\x1b[31mERROR\x1b[0m "
	case l >= slog.LevelWarn:
		return "\x1b[33mWARN\x1b[0m  "
	case l >= slog.LevelInfo:
		return "\x1b[32mINFO\x1b[0m  "
	default:
		return "\x1b[2mDEBUG\x1b[0m "
	}
}

func appendAttr(b *bytes.Buffer, group string, a slog.Attr) {
	a.Value = a.Value.Resolve()
	if a.Equal(slog.Attr{}) {
		return
	}
	if a.Value.Kind() == slog.KindGroup {
		if a.Key != "" {
			group += a.Key + "."
		}
		for _, member := range a.Value.Group() {
			appendAttr(b, group, member)
		}
		return
	}
	value := printable(a.Value.String())
	if value == "" || strings.ContainsAny(value, " =\"") {
		value = strconv.Quote(a.Value.String())
	}
	b.WriteByte(' ')
	b.WriteString("\x1b[2m" + group + printable(a.Key) + "=\x1b[0m" + value)
}

// printable keeps what peers and workloads wrote from steering the terminal.
func printable(s string) string {
	quoted := strconv.Quote(s)
	if strings.ContainsRune(quoted, '\\') && !strings.ContainsAny(s, `"\`) {
		return quoted[1 : len(quoted)-1]
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) }) {
		return quoted
	}
	return s
}
