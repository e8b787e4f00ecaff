package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"time"
)

// Severities and the facility of RFC 5424, section 6.2.1.
const (
	severityErr     = 3
	severityWarning = 4
	severityInfo    = 6
	severityDebug   = 7
	facilityDaemon  = 3
)

// syslogWait is the longest that a line waits for a daemon that doesn't read: a full log must not stop the service.
const syslogWait = 100 * time.Millisecond

// openSyslogLog makes the logger for Config.Syslog.
func openSyslogLog(cfg Config, opts *slog.HandlerOptions) (*slog.Logger, io.Closer, error) {
	if cfg.File != "" {
		return nil, nil, errors.New("log: goes to a file or to syslog, not to both: take one away")
	}
	if err := checkTag(cfg.Syslog); err != nil {
		return nil, nil, err
	}
	var sockets []string
	if cfg.SyslogSocket != "" {
		sockets = append(sockets, cfg.SyslogSocket)
	}
	out, err := openSyslog(cfg.Syslog, sockets...)
	if err != nil {
		return nil, nil, err
	}
	return slog.New(newSyslogHandler(out, cfg.Format, *opts)), out, nil
}

// severity is the priority that a line of level l gets within its facility.
func severity(l slog.Level) int {
	switch {
	case l >= slog.LevelError:
		return severityErr
	case l >= slog.LevelWarn:
		return severityWarning
	case l >= slog.LevelInfo:
		return severityInfo
	default:
		return severityDebug
	}
}

// syslogHandler is a slog.Handler that makes each line a message to syslog, with the level as its priority.
type syslogHandler struct {
	out    *syslogWriter
	format slog.Handler // writes to out
}

func newSyslogHandler(out *syslogWriter, format string, opts slog.HandlerOptions) slog.Handler {
	named := opts.ReplaceAttr
	opts.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey && a.Value.Kind() == slog.KindTime {
			return slog.Attr{} // each message has one of its own
		}
		return named(groups, a)
	}
	return syslogHandler{out, handler(out, format, &opts)}
}

// Enabled implements slog.Handler.
func (h syslogHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return h.format.Enabled(ctx, l)
}

// WithAttrs implements slog.Handler.
func (h syslogHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return syslogHandler{h.out, h.format.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h syslogHandler) WithGroup(name string) slog.Handler {
	return syslogHandler{h.out, h.format.WithGroup(name)}
}

// Handle implements slog.Handler. What can't be delivered within syslogWait is lost, and the error says so.
func (h syslogHandler) Handle(ctx context.Context, r slog.Record) error {
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	h.out.severity = severity(r.Level)
	return h.format.Handle(ctx, r)
}

// syslogWriter sends to the local syslog daemon, in the form its socket takes (RFC 3164 without a host name, as syslog(3)
// writes it). It connects again when the daemon was restarted.
type syslogWriter struct {
	sockets []string // tried in turn
	tag     string
	now     func() time.Time

	mu       sync.Mutex // held by a handler from before its Write until after it
	severity int        // of the next Write; guarded by mu
	conn     net.Conn   // nil if there is none; guarded by mu
	stream   bool       // conn is no datagram socket: messages need an end; guarded by mu
}

// openSyslog connects to the first of sockets that answers; without any, to where daemons usually listen.
func openSyslog(tag string, sockets ...string) (*syslogWriter, error) {
	if len(sockets) == 0 {
		sockets = []string{"/dev/log", "/var/run/syslog", "/var/run/log"}
	}
	w := &syslogWriter{sockets: sockets, tag: tag, now: time.Now}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.connect(); err != nil {
		return nil, fmt.Errorf("syslog: no daemon answers: %w", err)
	}
	return w, nil
}

// connect makes conn; w.mu is held.
func (w *syslogWriter) connect() error {
	var errs []error
	for _, path := range w.sockets {
		for _, network := range []string{"unixgram", "unix"} {
			conn, err := net.DialTimeout(network, path, syslogWait)
			if err == nil {
				w.conn, w.stream = conn, network == "unix"
				return nil
			}
			errs = append(errs, err)
		}
	}
	return errs[0] // the others say the same of other sockets
}

// Write implements io.Writer for one line; w.mu is held by the handler.
func (w *syslogWriter) Write(line []byte) (int, error) {
	if n := len(line); n > 0 && line[n-1] == '\n' {
		line = line[:n-1]
	}
	head := fmt.Sprintf("<%d>%s %s[%d]: ", facilityDaemon<<3|w.severity, w.now().Format(time.Stamp), w.tag, os.Getpid())
	message := append([]byte(head), line...)
	fresh := w.conn == nil
	if fresh {
		if err := w.connect(); err != nil {
			return 0, err
		}
	}
	err := w.send(message)
	if err != nil && !fresh && !errors.Is(err, os.ErrDeadlineExceeded) { // the daemon was restarted, most likely
		w.drop()
		if err = w.connect(); err == nil {
			err = w.send(message)
		}
	}
	if err != nil {
		w.drop()
		return 0, err
	}
	return len(line), nil
}

func (w *syslogWriter) send(message []byte) error {
	if w.stream {
		message = append(message, '\n')
	}
	if err := w.conn.SetWriteDeadline(time.Now().Add(syslogWait)); err != nil {
		return err
	}
	_, err := w.conn.Write(message)
	return err
}

// drop closes conn; w.mu is held.
func (w *syslogWriter) drop() {
	if w.conn != nil {
		w.conn.Close()
		w.conn = nil
	}
}

// Close implements io.Closer.
func (w *syslogWriter) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drop()
	return nil
}

// checkTag says what is wrong with a tag: daemons take what comes before "[" or ":" for it.
func checkTag(tag string) error {
	for _, r := range tag {
		if r <= ' ' || r > '~' || r == '[' || r == ':' {
			return errors.New("syslog tag " + strconv.Quote(tag) + ": give letters, digits and dashes")
		}
	}
	return nil
}
