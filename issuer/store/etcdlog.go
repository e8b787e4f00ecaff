package store

import (
	"context"
	"errors"
	"log/slog"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// zapLogger gives etcd a logger that writes its warnings and errors to log and
// ends in hook instead of in os.Exit or a panic.
func zapLogger(log *slog.Logger, hook *fatalHook) *zap.Logger {
	return zap.New(&slogCore{log: log, stopping: &hook.stopping}, zap.WithFatalHook(hook), zap.WithPanicHook(hook))
}

// slogCore is a zapcore.Core over a slog.Logger.
type slogCore struct {
	log *slog.Logger
	// stopping, while it is set, drops the warnings of an etcd that is being
	// stopped about what it can no longer do.
	stopping *atomic.Bool
	fields   []zapcore.Field
}

func (c *slogCore) Enabled(level zapcore.Level) bool {
	return level > zapcore.WarnLevel || level == zapcore.WarnLevel && !c.stopping.Load()
}

func (c *slogCore) With(fields []zapcore.Field) zapcore.Core {
	return &slogCore{log: c.log, stopping: c.stopping, fields: append(c.fields[:len(c.fields):len(c.fields)], fields...)}
}

func (c *slogCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	// What etcd calls fatal the hook reports, once.
	if !c.Enabled(e.Level) || e.Level > zapcore.ErrorLevel || isNoise(e.Message) {
		return ce
	}
	return ce.AddCore(e, c)
}

func (c *slogCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	level := slog.LevelWarn
	if e.Level > zapcore.WarnLevel {
		level = slog.LevelError
	}
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range append(c.fields[:len(c.fields):len(c.fields)], fields...) {
		f.AddTo(enc)
	}
	attrs := make([]slog.Attr, 0, len(enc.Fields)+1)
	for k, v := range enc.Fields {
		attrs = append(attrs, slog.Any(k, v))
	}
	c.log.LogAttrs(context.TODO(), level, "etcd: "+e.Message, attrs...)
	return nil
}

func (c *slogCore) Sync() error { return nil }

// noise is what a lone member says at every start, or about listeners and
// passwords that it has not, and which nobody can heed; and what the store's
// error says of damaged files and a full disk, in other words.
var noise = regexp.MustCompile(`^Running http and grpc server on single port|` +
	`^simple token is not cryptographically signed|` +
	`^failed to update storage version|` +
	`^failed to publish local member|^failed to update cluster version|` +
	`^getting file size failed|^failed to map db file|^Opening bbolt db|` +
	`^writeAt failed|^writing data failed|^Committing transaction failed|^growing db size failed|` +
	`^\[GOOS: .*\] \w+ file failed|` +
	`cannot campaign at term \d+ since there are still pending configuration changes`)

func isNoise(msg string) bool { return noise.MatchString(msg) }

// fatalHook takes the place of os.Exit in etcd's logger: it reports the first
// message and ends the goroutine that cannot go on. That goroutine must not
// return to etcd's code, which would then acknowledge what was not written.
type fatalHook struct {
	fail  func(msg string, cause error)
	first atomic.Bool

	stopping atomic.Bool
}

func (h *fatalHook) OnWrite(ce *zapcore.CheckedEntry, fields []zapcore.Field) {
	if h.first.CompareAndSwap(false, true) {
		h.fail(ce.Message, fieldError(fields))
	}
	runtime.Goexit()
}

func (h *fatalHook) fired() bool { return h.first.Load() }

func fieldError(fields []zapcore.Field) error {
	for _, f := range fields {
		if err, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
			return err
		}
	}
	return nil
}

// isDiskFull looks at the text too: bbolt hands some of these on as text alone.
func isDiskFull(err error) bool {
	return slices.ContainsFunc([]syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG}, func(full syscall.Errno) bool {
		return errors.Is(err, full) || strings.Contains(err.Error(), full.Error())
	})
}
