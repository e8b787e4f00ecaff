package health_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-mtls/lanyard/internal/health"
)

func get(t *testing.T, c *health.Checker, path string) (int, map[string]map[string]string) {
	t.Helper()
	rec := httptest.NewRecorder()
	c.Handler().ServeHTTP(rec, httptest.NewRequest("GET", path, nil))
	var body map[string]map[string]string
	if rec.Code != http.StatusNotFound {
		if err := json.Unmarshal(rec.Body.Bytes(), &body); err != nil {
			t.Fatal(err)
		}
		if ct := rec.Header().Get("Content-Type"); ct != "application/json" {
			t.Errorf("content type %q", ct)
		}
	}
	return rec.Code, body
}

func ok(context.Context) error { return nil }

// The form is that of spire-server 1.16.0: {"catalog.datastore":{},"server.ca":{}} and 200.
func TestAnswersAreSPIREs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		var log bytes.Buffer
		c := health.New(health.Config{}, slog.New(slog.NewTextHandler(&log, nil)),
			health.Check{Name: "server.ca", Ready: func(context.Context) error {
				if broken.Load() {
					return errors.New("no key")
				}
				return nil
			}},
			health.Check{Name: "catalog.datastore", Ready: ok})
		for range 2 {
			broken.Store(false)
			time.Sleep(2 * time.Second) // an answer is given again for one
			if code, body := get(t, c, "/ready"); code != 200 || !cmp.Equal(body, map[string]map[string]string{"server.ca": {}, "catalog.datastore": {}}) {
				t.Errorf("%d %v", code, body)
			}
			broken.Store(true)
			if code, _ := get(t, c, "/ready"); code != 200 {
				t.Error("judged twice within a second")
			}
			time.Sleep(2 * time.Second)
			if code, body := get(t, c, "/ready"); code != 500 || !cmp.Equal(body, map[string]map[string]string{"server.ca": {"message": "no key"}, "catalog.datastore": {}}) {
				t.Errorf("%d %v", code, body)
			}
			if err := c.Ready(t.Context()); err == nil || err.Error() != "server.ca: no key" {
				t.Error(err)
			}
		}
		if n := strings.Count(log.String(), "not ready"); n != 2 || strings.Count(log.String(), "ready again") != 1 {
			t.Errorf("the log tells %s", &log)
		}
		if code, _ := get(t, c, "/live"); code != 200 {
			t.Error("not alive, for being not ready")
		}
		if code, _ := get(t, c, "/"); code != 404 {
			t.Error("other paths are answered")
		}
	})
}

func TestPathsAreConfigured(t *testing.T) {
	c := health.New(health.Config{ReadyPath: "/r", LivePath: "/l"}, nil, health.Check{Name: "a", Ready: ok, Live: func() error { return errors.New("lost for good") }})
	if code, _ := get(t, c, "/r"); code != 200 {
		t.Error(code)
	}
	if code, body := get(t, c, "/l"); code != 500 || body["a"]["message"] != "lost for good" {
		t.Error(code, body)
	}
}

func TestACheckThatHangsIsNotReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hang = make(chan struct{})
		defer close(hang)
		c := health.New(health.Config{}, nil, health.Check{Name: "a", Ready: func(context.Context) error { <-hang; return nil }}, health.Check{Name: "b", Ready: ok})
		ends := make(chan error, 3)
		begin := time.Now()
		for range 3 {
			go func() { ends <- c.Ready(t.Context()) }()
		}
		for range 3 {
			if err := <-ends; err == nil || err.Error() != "a: no answer within 5s" {
				t.Error(err)
			}
		}
		if took := time.Since(begin); took != 5*time.Second {
			t.Errorf("took %s", took)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		time.Sleep(2 * time.Second)
		if err := c.Ready(ctx); err == nil {
			t.Error("ready for someone who is gone")
		}
	})
}

func TestServeEndsWithItsContext(t *testing.T) {
	c := health.New(health.Config{}, nil, health.Check{Name: "a", Ready: ok})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Serve(ctx, l) }()
	resp, err := http.Get("http://" + l.Addr().String() + "/ready")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if resp.Body.Close(); err != nil || strings.TrimSpace(string(body)) != `{"a":{}}` {
		t.Errorf("%v %s", err, body)
	}
	http.DefaultClient.CloseIdleConnections()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestValidateNamesTheKeys(t *testing.T) {
	err := health.Config{Enabled: true, Port: -1, ReadyPath: "ready", LivePath: "ready"}.Validate()
	want := `bind_port -1: want 1 to 65535, or 0 for any that is free
ready_path "ready": want a plain path that begins with a slash, such as /ready
live_path "ready": want a plain path that begins with a slash, such as /ready
ready_path and live_path are both ready: a request could not tell which is meant`
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Error(diff)
	}
	if err := (health.Config{Port: -1}).Validate(); err != nil {
		t.Errorf("of a listener that is off: %v", err)
	}
	if got := (health.Config{Port: 80}).ListenAddress(); got != "localhost:80" {
		t.Error(got)
	}
}
