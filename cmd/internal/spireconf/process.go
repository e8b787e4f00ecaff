package spireconf

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/lanyard-mtls/lanyard/internal/telemetry"
)

// Process is what goes with a role's process: its log, its profiles, and the signals that don't end it.
type Process struct {
	Log       telemetry.Config
	Profiling Profiling
	// Notes are what is to say about the configuration file, a line each.
	Notes []string
}

// Run opens the log, whose level level is from then on, and runs the role with all that goes with it.
func (p Process) Run(ctx context.Context, stdout io.Writer, role func(ctx context.Context, log *slog.Logger, level *slog.LevelVar) error) (err error) {
	var level slog.LevelVar
	p.Log.Var = &level
	log, closer, err := telemetry.Open(p.Log, stdout)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closer.Close()) }()
	for _, note := range p.Notes {
		log.Warn(note)
	}
	beside, end := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer end()
	usr := make(chan os.Signal, 1)
	signal.Notify(usr, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(usr)
	wg.Go(func() { onSignals(beside, usr, closer, log) })
	wg.Go(func() { p.Profiling.Serve(beside, log) })
	return role(ctx, log, &level)
}

// onSignals does what SPIRE does on signals that don't end it.
func onSignals(ctx context.Context, signals <-chan os.Signal, closer io.Closer, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case sig := <-signals:
			file, inFile := closer.(*telemetry.File)
			switch {
			case sig == syscall.SIGUSR1:
				log.Info("SIGUSR1 prints no metrics and reads no file again: scrape telemetry { Prometheus { … } }, and restart to change settings")
			case !inFile:
				log.Info("SIGUSR2 reopens the log file, and there is none")
			default:
				if err := file.Reopen(); err != nil {
					log.Error("the log file can't be opened again; going on in the old one", "error", err)
					continue
				}
				log.Info("reopened the log file")
			}
		}
	}
}
