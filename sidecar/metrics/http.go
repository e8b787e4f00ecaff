package metrics

import (
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// The paths served; ghostunnel's. Path takes ?format=prometheus or json, which
// is the default.
const (
	Path           = "/_metrics"
	PathJSON       = "/_metrics/json"
	PathPrometheus = "/_metrics/prometheus"
)

// maxScrapes is how many scrapes are answered at a time.
const maxScrapes = 4

// Handlers returns what serves each path; nothing if nothing is collected.
func (s *Set) Handlers() map[string]http.Handler {
	if s.registry == nil {
		return nil
	}
	text := promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelWarn), MaxRequestsInFlight: maxScrapes, EnableOpenMetrics: true})
	form := http.HandlerFunc(s.serveJSON)
	return map[string]http.Handler{PathJSON: form, PathPrometheus: text, Path: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("format") == "prometheus" {
			text.ServeHTTP(w, r)
			return
		}
		form.ServeHTTP(w, r)
	})}
}

// serveJSON answers with the content type that ghostunnel's answers have.
func (s *Set) serveJSON(w http.ResponseWriter, _ *http.Request) {
	body, err := s.JSON()
	if err != nil {
		http.Error(w, "metrics: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Write(body)
}
