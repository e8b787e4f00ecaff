package status_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/metrics"
	"github.com/lanyard-mtls/lanyard/sidecar/record"
	"github.com/lanyard-mtls/lanyard/sidecar/status"
)

func healthy(tunnels ...string) metrics.IdentityStatus {
	now := time.Now()
	return metrics.IdentityStatus{Tunnels: tunnels, Status: identity.Status{Source: "Workload API unix:///a", SPIFFEID: "spiffe://one.test/db",
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour + time.Second/2), LastUpdate: now.Add(-time.Minute), Connected: true,
		Bundles: []identity.BundleStatus{{TrustDomain: "one.test", Authorities: 2, NotAfter: now.Add(24 * time.Hour), Updated: now.Add(-time.Minute)}}}}
}

func always[T any](list ...T) func() []T { return func() []T { return list } }

func TestGap04StatusTellsIdentityAndBundles(t *testing.T) {
	p := serveTCP(t, status.Config{Revision: "1.2.3",
		Tunnels:    always(status.Tunnel{Direction: record.Inbound, Listen: "127.0.0.1:1", Target: "unix:/t", Connections: 3, Handshakes: 1}),
		Identities: always(healthy(""))})
	p.Listening()
	code, got := p.status(t)
	if code != 200 || !got.OK || got.Status != "ok" || got.ListenAddress != "127.0.0.1:1" || got.ForwardAddress != "unix:/t" || got.Message != "listening" ||
		got.Revision != "1.2.3" || !strings.HasPrefix(got.Compiler, "go") || got.Hostname == "" || !got.LastReload.IsZero() || time.Since(got.Time) > limit || got.Connections != 3 {
		t.Errorf("%d, %+v", code, got)
	}
	id := got.Identity
	if id == nil || len(got.Identities) != 1 || !id.OK || id.SPIFFEID != "spiffe://one.test/db" || *id.ExpiresIn != 3600 || id.NotAfter == nil ||
		id.LastUpdate == nil || id.Source == "" || got.WorkloadAPI == nil || !got.WorkloadAPI.Connected {
		t.Errorf("identity: %+v, %+v", id, got.WorkloadAPI)
	}
	if len(got.Bundles) != 1 || got.Bundles[0].TrustDomain != "one.test" || got.Bundles[0].Authorities != 2 || *got.Bundles[0].Age < 60 || got.Bundles[0].NotAfter == nil {
		t.Errorf("bundles: %+v", got.Bundles)
	}
	want := []status.TunnelStatus{{Direction: "inbound", Listen: "127.0.0.1:1", Target: "unix:/t", OK: true, Connections: 3, Handshakes: 1}}
	if diff := cmp.Diff(want, got.Tunnels); diff != "" {
		t.Errorf("tunnels (-want +got):\n%s", diff)
	}
}

func TestOneBadTunnelMakesItUnready(t *testing.T) {
	lost := healthy("api")
	lost.Err, lost.Connected, lost.ConnectionErr = errors.New("expired"), false, errors.New("agent is away")
	for name, tt := range map[string]struct {
		tunnel     status.Tunnel
		identities []metrics.IdentityStatus
		want       string // of the tunnel's error, or the backend's
	}{
		"identity": {status.Tunnel{Name: "api"}, []metrics.IdentityStatus{healthy("web"), lost}, "expired"},
		"draining": {status.Tunnel{Name: "api", Draining: true}, []metrics.IdentityStatus{healthy("web", "api")}, ""},
		"backend": {status.Tunnel{Name: "api", Probe: status.NewProbe(func(context.Context) error { return errors.New("refused") }, limit)},
			[]metrics.IdentityStatus{healthy("web", "api")}, `tunnel "api": refused`},
	} {
		t.Run(name, func(t *testing.T) {
			p := serveUNIX(t, status.Config{Tunnels: always(status.Tunnel{Name: "web", Listen: "a", Target: "b"}, tt.tunnel), Identities: always(tt.identities...)})
			p.Listening()
			code, got := p.status(t)
			if code != 503 || got.OK || got.Status != "critical" || !got.Tunnels[0].OK || got.Tunnels[1].OK || got.Tunnels[1].Error+got.BackendError != tt.want {
				t.Errorf("%d, %+v", code, got)
			}
			if name == "identity" && (got.WorkloadAPI.Connected || got.WorkloadAPI.Error != "agent is away" || got.Identity != nil || !cmp.Equal(got.Identities[1].Tunnels, []string{"api"})) {
				t.Errorf("%+v", got)
			}
			if name == "backend" && (*got.BackendOK || got.BackendStatus != "critical" || *got.Tunnels[1].BackendOK || got.Tunnels[0].BackendOK != nil) {
				t.Errorf("%+v", got)
			}
			if code, body := p.do(t, http.MethodGet, status.PathLive); code != 200 || body != "ok\n" {
				t.Errorf("not alive: %d, %s", code, body)
			}
		})
	}
}

func TestPhases(t *testing.T) {
	var told []status.Phase
	p := serveUNIX(t, status.Config{Changed: func(to status.Phase) { told = append(told, to) }})
	expect := func(code int, message status.Phase) status.Response {
		t.Helper()
		gotCode, got := p.status(t)
		if gotCode != code || got.Message != message || got.OK != (code == 200) {
			t.Errorf("%d, %+v; want %d, %s", gotCode, got, code, message)
		}
		return got
	}
	expect(503, status.Initializing)
	p.Reloaded(errors.New("told to reload, and nothing is there yet"))
	expect(503, status.Initializing)
	p.Listening()
	p.Listening()
	expect(200, status.Listening)
	p.Reloading()
	expect(200, status.Reloading)
	p.Reloaded(nil)
	reloaded := expect(200, status.Listening).LastReload
	if time.Since(reloaded) > limit {
		t.Errorf("last reload at %s", reloaded)
	}
	p.Stopping()
	expect(503, status.Stopping)
	p.Reloading() // too late
	p.Reloaded(nil)
	p.Listening()
	expect(503, status.Stopping)
	if diff := cmp.Diff([]status.Phase{"listening", "reloading", "listening", "stopping"}, told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

func TestGap15AFailedReloadIsTold(t *testing.T) {
	p := serveUNIX(t, status.Config{})
	p.Listening()
	p.Reloading()
	p.Reloaded(errors.New("sidecar.hcl:3: no such key"))
	code, got := p.status(t)
	if code != 200 || !got.LastReload.IsZero() || got.ReloadError != "sidecar.hcl:3: no such key" {
		t.Errorf("%d, %+v", code, got)
	}
	p.Reloading()
	p.Reloaded(nil)
	if _, got := p.status(t); got.LastReload.IsZero() || got.ReloadError != "" {
		t.Errorf("after a good one: %+v", got)
	}
}

func TestGap25StatusAnswersWhileDraining(t *testing.T) {
	p := serveTCP(t, status.Config{Tunnels: always(status.Tunnel{Connections: 1}), Identities: always(healthy(""))})
	p.Listening()
	p.Stopping()
	if code, got := p.status(t); code != 503 || got.Message != "stopping" || !got.Identity.OK || got.Connections != 1 {
		t.Errorf("%d, %+v", code, got)
	}
	if code, _ := p.do(t, http.MethodGet, status.PathLive); code != 200 {
		t.Errorf("not alive: %d", code)
	}
	p.stop()
	if _, err := net.Dial(p.network, p.addr); err == nil {
		t.Error("still listening")
	}
}

// The names and types are those that scripts for ghostunnel read.
func TestStatusHasGhostunnelsFields(t *testing.T) {
	p := serveTCP(t, status.Config{Tunnels: always(status.Tunnel{Probe: status.NewProbe(func(context.Context) error { return nil }, limit)})})
	code, body := p.do(t, http.MethodPost, status.Path) // any method
	var got map[string]any
	check(t, json.Unmarshal([]byte(body), &got))
	for name, want := range map[string]any{"ok": false, "status": "critical", "backend_ok": true, "backend_status": "ok", "last_reload": "0001-01-01T00:00:00Z",
		"message": "initializing", "listen_address": "", "forward_address": "", "revision": ""} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v, want %v", name, v, want)
		}
	}
	for _, name := range []string{"time", "hostname", "compiler"} {
		if got[name] == nil {
			t.Errorf("no %s", name)
		}
	}
	if _, ok := got["backend_error"]; ok || code != 503 {
		t.Errorf("%d, %s", code, body)
	}
	if code, _ := p.do(t, http.MethodGet, "/other"); code != 404 {
		t.Errorf("another path: %d", code)
	}
	if code, _ := p.do(t, http.MethodGet, metrics.Path); code != 404 {
		t.Errorf("metrics that are not collected: %d", code)
	}
}

func TestMetricsAreServed(t *testing.T) {
	p := serveTCP(t, status.Config{Metrics: metrics.New(metrics.Config{Serve: true}).Handlers()})
	if code, body := p.do(t, http.MethodGet, metrics.PathPrometheus); code != 200 || !strings.Contains(body, "go_goroutines") {
		t.Errorf("%d, %s", code, body)
	}
}
