package sidecarcmd

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar"
)

// SurviveHangups keeps the signals that ask for a reload from ending this process, which does not yet know what to reload. A main
// calls it first, as supervisors send them when they please.
func SurviveHangups() { _, _ = hangups() }

// hangups receives the signals that ask for a reload. From here on they don't end the process, nor one that is stopping already.
func hangups() (got <-chan os.Signal, stop func()) {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGHUP, syscall.SIGUSR1)
	return ch, func() { signal.Stop(ch) }
}

// serve runs the sidecar of cfg until ctx ends and its connections have, and reloads meanwhile: from when everything listens, so
// that no signal comes too early to count.
func serve(ctx context.Context, cfg sidecar.Config, r reloader, reload func(*sidecar.Sidecar) func(context.Context) error) error {
	ready := make(chan struct{})
	cfg.Ready = func(sidecar.Addrs) { close(ready) }
	s, err := sidecar.New(cfg)
	if err != nil {
		return err
	}
	warn(r.log, cfg.Tunnels)
	r.reload = reload(s)
	reloading, end := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer end()
	beside.Go(func() {
		select {
		case <-ready:
			r.run(reloading)
		case <-reloading.Done():
		}
	})
	return s.Run(ctx)
}

// reloader has things read again when it is time.
type reloader struct {
	log     *slog.Logger
	reload  func(context.Context) error
	hangup  <-chan os.Signal
	changed <-chan struct{} // the file may differ; may be nil
	every   time.Duration   // 0: no timer
}

// run reloads, one time after the other, until ctx ends.
func (r reloader) run(ctx context.Context) {
	var tick <-chan time.Time
	if r.every > 0 {
		ticker := time.NewTicker(r.every)
		defer ticker.Stop()
		tick = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-r.hangup:
			r.once(ctx, s.String())
		case <-tick:
			r.once(ctx, "time")
		case <-r.changed:
			r.once(ctx, "the file changed")
		}
	}
}

func (r reloader) once(ctx context.Context, why string) {
	r.log.Info("reloading", "reason", why)
	err := r.reload(ctx)
	switch {
	case errors.Is(err, sidecar.ErrNotRunning):
		r.log.Info("not reloaded", "reason", err.Error())
	case err != nil:
		for line := range strings.SplitSeq(err.Error(), "\n") {
			r.log.Error("reload failed, what was there stays in use", "error", line)
		}
	default:
		r.log.Info("reloaded")
	}
}
