package spireconf

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"strconv"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/hclconf"
)

// Profiling is what profiling_enabled and profiling_port say. The zero Profiling serves nothing.
type Profiling struct {
	Enabled bool
	Port    int
}

// Check finds what is wrong with the settings of profiles in a block, "server" or "agent", and tells what of them does nothing.
func (p Profiling) Check(conf *hclconf.File, block string) {
	if p.Port < 0 || p.Port > 65535 {
		conf.Check(block+".profiling_port", fmt.Errorf("%d: want 1 to 65535", p.Port))
	}
	for _, key := range []string{"profiling_freq", "profiling_names"} {
		if path := block + "." + key; conf.Has(path) {
			conf.Notef(conf.At(path), "%s is not used: profiles are not written to files; fetch them from profiling_port", path)
		}
	}
	if p.Enabled && p.Port == 0 {
		conf.Notef(conf.At(block+".profiling_enabled"), "%s.profiling_enabled does nothing without profiling_port", block)
	}
}

// Serve serves Go's profiles to this machine until ctx ends. A port in use is no reason not to do the role's work: it is
// logged.
func (p Profiling) Serve(ctx context.Context, log *slog.Logger) {
	if !p.Enabled || p.Port == 0 {
		return
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", net.JoinHostPort("localhost", strconv.Itoa(p.Port)))
	if err != nil {
		log.Warn("profiles are not served", "error", err)
		return
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	log.Info("serving profiles", "url", "http://"+l.Addr().String()+"/debug/pprof/")
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		log.Warn("profiles are not served any more", "error", err)
	}
}
