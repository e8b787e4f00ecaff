package policy

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// At level debug each decision is a line, with the query and its result where an engine was asked.
func TestDecisionsAreLogged(t *testing.T) {
	var out bytes.Buffer
	deps := func(level slog.Level) Deps {
		return Deps{Name: flags, Rego: func(Rego) (Engine, error) { return engineFunc(tunnelIsYes), nil },
			Log: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: level}))}
	}
	c := Config{Rego: Rego{Path: "p.rego", Query: "data.a"}}
	for _, tt := range []struct{ tunnel, want string }{
		{"yes", `level=DEBUG msg="policy decision" allowed=true rule="--allow-query data.a" peer_spiffe_id=` + web.String() + ` tunnel=yes`},
		{"no", `allowed=false rule="" peer_spiffe_id=` + web.String() + ` tunnel=no reason="--allow-query data.a is false for ` + web.String() + `"`},
	} {
		for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo} {
			out.Reset()
			p, err := Compile(c, deps(level))
			if err != nil {
				t.Fatal(err)
			}
			p.Decide(t.Context(), Request{Own: db, Peer: web, Tunnel: tt.tunnel})
			if level == slog.LevelDebug && !strings.Contains(out.String(), tt.want) || level == slog.LevelInfo && out.Len() > 0 {
				t.Errorf("at %s: %s\nwant %s", level, &out, tt.want)
			}
		}
	}
}
