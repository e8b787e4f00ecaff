package issuercmd

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

// profiling serves Go's profiles to this machine, if port is not 0.
type profiling struct{ port int }

func (s *serverBlock) profile() profiling {
	if !s.ProfilingEnabled {
		return profiling{}
	}
	return profiling{port: s.ProfilingPort}
}

// profiling finds what is wrong with the settings of profiles, and tells what of them does nothing.
func (s *serverBlock) profiling(conf *hclconf.File) {
	if s.ProfilingPort < 0 || s.ProfilingPort > 65535 {
		conf.Check("server.profiling_port", fmt.Errorf("%d: want 1 to 65535", s.ProfilingPort))
	}
	for _, key := range []string{"profiling_freq", "profiling_names"} {
		if path := "server." + key; conf.Has(path) {
			conf.Notef(conf.At(path), "%s is not used: profiles are not written to files; fetch them from profiling_port", path)
		}
	}
	if s.ProfilingEnabled && s.ProfilingPort == 0 {
		conf.Notef(conf.At("server.profiling_enabled"), "server.profiling_enabled does nothing without profiling_port")
	}
}

// serve answers until ctx ends. A port in use is no reason not to issue: it is logged.
func (p profiling) serve(ctx context.Context, log *slog.Logger) {
	if p.port == 0 {
		return
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", net.JoinHostPort("localhost", strconv.Itoa(p.port)))
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
