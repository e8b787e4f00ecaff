package health

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Handler serves both paths, as SPIRE does: 200 or 500, and an object with what each subsystem says, empty where there is
// nothing to say.
func (c *Checker) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc(c.cfg.readyPath(), func(w http.ResponseWriter, r *http.Request) {
		failed, err := c.judge(r.Context())
		if err != nil {
			return // nobody waits
		}
		answer(w, c.checks, failed)
	})
	mux.HandleFunc(c.cfg.livePath(), func(w http.ResponseWriter, _ *http.Request) {
		failed := map[string]error{}
		for _, check := range c.checks {
			if check.Live == nil {
				continue
			}
			if err := check.Live(); err != nil {
				failed[check.Name] = err
			}
		}
		answer(w, c.checks, failed)
	})
	return mux
}

// details is what SPIRE's subsystems say of themselves.
type details struct {
	Message string `json:"message,omitempty"`
}

func answer(w http.ResponseWriter, checks []Check, failed map[string]error) {
	body := map[string]*details{}
	for _, check := range checks {
		body[check.Name] = &details{}
		if err := failed[check.Name]; err != nil {
			body[check.Name] = &details{err.Error()}
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if len(failed) > 0 {
		w.WriteHeader(http.StatusInternalServerError)
	}
	json.NewEncoder(w).Encode(body)
}

// Serve answers on l, which it closes, until ctx ends, and returns nil then.
func (c *Checker) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{Handler: c.Handler(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(c.log.Handler(), slog.LevelDebug)}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(l); ctx.Err() == nil && !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
