package cli

import (
	"errors"
	"io"
	"log/slog"

	"github.com/spf13/pflag"

	"github.com/lanyard-mtls/lanyard/internal/telemetry"
)

// LogFlags are SPIRE's flags about logging.
type LogFlags struct{ telemetry.Config }

// Add adds them by SPIRE's names.
func (l *LogFlags) Add(fs *pflag.FlagSet) {
	l.add(fs, "logLevel", "logFormat", "logFile", "logSourceLocation")
}

// AddDashed adds them by names in the style of ghostunnel's.
func (l *LogFlags) AddDashed(fs *pflag.FlagSet) {
	l.add(fs, "log-level", "log-format", "log-file", "log-source-location")
}

func (l *LogFlags) add(fs *pflag.FlagSet, level, format, file, source string) {
	fs.StringVar(&l.Level, level, "", "`LEVEL` from which to log: debug, info, warn or error (default info)")
	fs.StringVar(&l.Format, format, "", "`text|json` (default text; on a terminal coloured and short)")
	fs.StringVar(&l.File, file, "", "`FILE` to append the log to (default standard output)")
	fs.BoolVar(&l.Source, source, false, "log where in the code each line comes from")
}

// Check is the usage error for flags that can't be.
func (l *LogFlags) Check() error {
	if err := telemetry.Check(l.Level, l.Format); err != nil {
		return Usagef("%v", err)
	}
	return nil
}

// Over gives these flags where set, else those of the file below.
func (l *LogFlags) Over(file telemetry.Config) telemetry.Config {
	merged := l.Config
	if merged.Level == "" {
		merged.Level = file.Level
	}
	if merged.Format == "" {
		merged.Format = file.Format
	}
	if merged.File == "" {
		merged.File = file.File
	}
	merged.Source = merged.Source || file.Source
	return merged
}

// WithLog opens the log, runs f with it, and closes it.
func WithLog(cfg telemetry.Config, w io.Writer, f func(log *slog.Logger) error) (err error) {
	log, closer, err := telemetry.Open(cfg, w)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closer.Close()) }()
	return f(log)
}
