package record_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/sidecar/pipe"
	"github.com/lanyard-mtls/lanyard/sidecar/record"
)

// logged returns the only line that a record makes.
func logged(t *testing.T, r *record.Record) map[string]any {
	t.Helper()
	var b bytes.Buffer
	r.Log(t.Context(), slog.New(slog.NewJSONHandler(&b, nil)))
	got := map[string]any{}
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatalf("%v: %s", err, b.Bytes())
	}
	delete(got, "time")
	return got
}

func full() *record.Record {
	return &record.Record{Tunnel: "web", Direction: record.Inbound, Client: "127.0.0.1:1", Target: "127.0.0.1:2",
		Own: spiffeid.RequireFromString("spiffe://one.test/db"), Peer: spiffeid.RequireFromString("spiffe://one.test/web"), Rule: "allow_uris spiffe://one.test/web",
		TLSVersion: "TLS 1.3", Group: "X25519MLKEM768", Cipher: "TLS_AES_128_GCM_SHA256", ALPN: "h2", ServerName: "db.test", Resumed: true,
		Handshake: time.Millisecond, Forwarded: 2, Returned: 3, Drained: true}
}

func TestGap06PeerIDIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := full()
		r.Start = time.Now()
		time.Sleep(time.Second)
		r.Connected()
		time.Sleep(time.Second)
		r.End(record.Closed, nil)
		time.Sleep(time.Second) // until it is logged
		want := map[string]any{"level": "INFO", "msg": "connection", "tunnel": "web", "direction": "inbound", "cause": "closed", "client": "127.0.0.1:1",
			"target": "127.0.0.1:2", "spiffe_id": "spiffe://one.test/db", "peer_spiffe_id": "spiffe://one.test/web", "rule": "allow_uris spiffe://one.test/web",
			"tls_version": "TLS 1.3", "group": "X25519MLKEM768", "cipher": "TLS_AES_128_GCM_SHA256", "alpn": "h2", "server_name": "db.test", "forwarded": 2.,
			"returned": 3., "duration": 2e9, "handshake": 1e6, "resumed": true, "drained": true}
		if diff := cmp.Diff(want, logged(t, r)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if !r.Established() || r.Connect != time.Second {
			t.Errorf("connected after %s", r.Connect)
		}
	})
}

// A refused peer is named, and it is said that this is what it claims.
func TestGap06RefusedPeerIsNamed(t *testing.T) {
	r := &record.Record{Direction: record.Inbound, Start: time.Now(), Peer: spiffeid.RequireFromString("spiffe://evil.test/x"), PeerClaimed: true}
	r.End(record.Refused, errors.New("no bundle of trust domain evil.test"))
	got := logged(t, r)
	delete(got, "duration")
	want := map[string]any{"level": "WARN", "msg": "connection", "direction": "inbound", "cause": "refused", "client": "", "target": "", "spiffe_id": "",
		"peer_spiffe_id": "spiffe://evil.test/x", "peer_unverified": true, "rule": "", "forwarded": 0., "returned": 0., "error": "no bundle of trust domain evil.test"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestPeersWithoutSVIDsAreNamedBySubject(t *testing.T) {
	got := logged(t, &record.Record{PeerSubject: "CN=db", Cause: record.Closed})
	if _, ok := got["peer_spiffe_id"]; ok || got["peer_subject"] != "CN=db" {
		t.Errorf("got %v", got)
	}
}

func TestStrangersTextIsCut(t *testing.T) {
	long := strings.Repeat("é", 5000)
	r := &record.Record{PeerSubject: long, ServerName: long}
	r.End(record.Failed, errors.New(long))
	got := logged(t, r)
	for key, n := range map[string]int{"peer_subject": 256, "server_name": 256, "error": 1024} {
		if s := got[key].(string); len(s) != n+len("…") || !strings.HasSuffix(s, "é…") {
			t.Errorf("%s has %d bytes, ends %q", key, len(s), s[len(s)-10:])
		}
	}
}

// all are the causes there are.
func all() []record.Cause {
	return []record.Cause{record.Limited, record.ProxyHeader, record.NoIdentity, record.Expired, record.HandshakeTimeout, record.HandshakeFailed, record.Refused,
		record.RefusedByPeer, record.DialTimeout, record.DialFailed, record.Closed, record.Reset, record.Truncated, record.TimedOut, record.IdleTimeout,
		record.CloseTimeout, record.MaxAge, record.Failed, record.Shutdown}
}

func TestReasonsAreLabels(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range all() {
		reason := c.Reason()
		if seen[reason] || strings.Trim(reason, "abcdefghijklmnopqrstuvwxyz_") != "" {
			t.Errorf("%q has reason %q", c, reason)
		}
		seen[reason] = true
	}
	if got := record.Limited.Reason() + record.ProxyHeader.Reason(); got != "refused_limitbad_proxy_header" {
		t.Error(got)
	}
}

func TestLevels(t *testing.T) {
	info := map[record.Cause]bool{record.Closed: true, record.Reset: true, record.IdleTimeout: true, record.MaxAge: true}
	for _, c := range all() {
		want := "WARN"
		if info[c] {
			want = "INFO"
		}
		if got := logged(t, &record.Record{Cause: c})["level"]; got != want {
			t.Errorf("%s is at %s, want %s", c, got, want)
		}
	}
}

func TestPiped(t *testing.T) {
	err := errors.New("x")
	for in, want := range map[pipe.Cause]record.Cause{pipe.Closed: record.Closed, pipe.Reset: record.Reset, pipe.TimedOut: record.TimedOut,
		pipe.Truncated: record.Truncated, pipe.Alert: record.RefusedByPeer, pipe.Aborted: record.Shutdown, pipe.IdleTimeout: record.IdleTimeout,
		pipe.CloseTimeout: record.CloseTimeout, pipe.MaxAge: record.MaxAge, pipe.Failed: record.Failed} {
		r := &record.Record{}
		r.Piped(pipe.Result{Forward: 1, Backward: 2, Cause: in, Err: err})
		if r.Cause != want || r.Forwarded != 1 || r.Returned != 2 || (r.Err == nil) != (in == pipe.Closed) {
			t.Errorf("%v: %+v", in, r)
		}
	}
}

// disabled is a handler that nobody may format anything for.
type disabled struct {
	slog.Handler
	t *testing.T
}

func (disabled) Enabled(context.Context, slog.Level) bool { return false }

func (d disabled) Handle(context.Context, slog.Record) error {
	d.t.Error("a record was made")
	return nil
}

type noText struct{ t *testing.T }

func (e noText) Error() string {
	e.t.Error("an error was formatted")
	return ""
}

// taking is a handler that takes everything and does nothing with it.
type taking struct{ slog.Handler }

func (taking) Enabled(context.Context, slog.Level) bool  { return true }
func (taking) Handle(context.Context, slog.Record) error { return nil }

func TestLoggingIsCheap(t *testing.T) {
	r := full()
	r.Start = time.Now()
	r.End(record.Failed, noText{t})
	log := slog.New(disabled{t: t})
	if n := testing.AllocsPerRun(100, func() { r.Log(t.Context(), log) }); n > 1 { // t.Context may be one
		t.Errorf("%v allocations without a log", n)
	}
	r.End(record.Closed, nil)
	ctx, log := t.Context(), slog.New(taking{})
	if n := testing.AllocsPerRun(100, func() { r.Log(ctx, log) }); n > 2 {
		t.Errorf("%v allocations a record, want those of slog", n)
	}
}

func BenchmarkLog(b *testing.B) {
	r := full()
	r.Start = time.Now()
	r.End(record.Closed, nil)
	ctx, log := b.Context(), slog.New(taking{})
	b.ReportAllocs()
	for b.Loop() {
		r.Log(ctx, log)
	}
}
