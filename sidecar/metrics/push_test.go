package metrics_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar/metrics"
	"github.com/lanyard-mtls/lanyard/sidecar/record"
)

// run pushes until the function it returns is called.
func run(t *testing.T, s *metrics.Set) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

func TestGraphitePush(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := metrics.New(metrics.Config{Graphite: l.Addr().String(), Interval: 5 * time.Millisecond})
	connection(s.Tunnel("web", record.Inbound), "one.test", record.Closed)
	stop := run(t, s)
	defer stop()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	got := map[string]string{}
	form := regexp.MustCompile(`^ghostunnel\.([a-z0-9.-]+[a-z_]*) (-?[0-9.e+-]+) [0-9]{10}$`)
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		m := form.FindStringSubmatch(lines.Text())
		if m == nil {
			t.Errorf("line %q", lines.Text())
			continue
		}
		got[m[1]] = m[2]
	}
	for name, want := range map[string]string{"accept.total.count": "1", "accept.total.count_ps": "200.00", "conn.open.count": "0",
		"conn.handshake.count": "1", "conn.handshake.min": "2000000", "conn.handshake.mean": "2000000.00", "conn.handshake.std-dev": "0.00",
		"conn.handshake.50-percentile": "2000000.00", "conn.handshake.999-percentile": "2000000.00", "conn.handshake.one-minute": "0.00"} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	wantNames(t, "testdata/ghostunnel-graphite.txt", "", slices.Collect(maps.Keys(got)))
}

func TestURLPush(t *testing.T) {
	got := make(chan []byte, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if user, password, _ := r.BasicAuth(); r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" || user != "u" || password != "secret" {
			t.Errorf("%s %s %s:%s", r.Method, r.Header, user, password)
		}
		select {
		case got <- body:
		default:
		}
	}))
	defer server.Close()
	s := metrics.New(metrics.Config{URL: strings.Replace(server.URL, "//", "//u:secret@", 1) + "/in", Interval: 5 * time.Millisecond})
	stop := run(t, s)
	body := <-got
	stop()
	var points []map[string]any
	if err := json.Unmarshal(body, &points); err != nil || len(points) < 20 || points[0]["metric"] != "ghostunnel.accept.total" {
		t.Errorf("%v: %s", err, body)
	}
}

// journal is a log that may be written and read at the same time.
type journal struct {
	mu sync.Mutex
	bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.Buffer.Write(p)
}

func (j *journal) text() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.String()
}

// A receiver that is away is told about once, and once that it is back. None of
// the lines has the password.
func TestPushesSurviveTheReceiversAbsence(t *testing.T) {
	for name, cfg := range map[string]metrics.Config{"graphite": {Graphite: "graphite.test:2003"}, "url": {URL: "http://u:secret@json.test/in"}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log journal
				var away atomic.Bool
				var pushes atomic.Int64
				away.Store(true)
				cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
				cfg.Interval = time.Minute
				cfg.Push.Dial = func(context.Context, string, string) (net.Conn, error) {
					pushes.Add(1)
					if away.Load() {
						return nil, errors.New("connection refused")
					}
					near, far := net.Pipe()
					go answer(far)
					return near, nil
				}
				stop := run(t, metrics.New(cfg))
				expect := func(n int64, warnings, infos int) {
					t.Helper()
					time.Sleep(5*time.Minute - time.Second) // of the bubble's time
					synctest.Wait()
					if text := log.text(); pushes.Load() != n || strings.Count(text, "level=WARN") != warnings || strings.Count(text, "level=INFO") != infos {
						t.Errorf("%d pushes, want %d; %d warnings and %d infos in\n%s", pushes.Load(), n, warnings, infos, text)
					}
					time.Sleep(time.Second)
					synctest.Wait()
				}
				expect(4, 1, 0)
				away.Store(false)
				expect(9, 1, 1)
				away.Store(true)
				expect(14, 2, 1)
				stop()
				if strings.Contains(log.text(), "secret") || !strings.Contains(log.text(), "connection refused") {
					t.Errorf("log:\n%s", log.text())
				}
			})
		})
	}
}

// answer reads all, and answers if it is HTTP.
func answer(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	if head, _ := r.Peek(4); string(head) != "POST" {
		io.Copy(io.Discard, r)
		return
	}
	if req, err := http.ReadRequest(r); err == nil {
		io.Copy(io.Discard, req.Body)
		io.WriteString(c, "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n")
	}
}

// A receiver that takes a push and says nothing holds it up for no longer than an
// interval.
func TestPushesAreBoundedInTime(t *testing.T) {
	for name, cfg := range map[string]metrics.Config{"graphite": {Graphite: "graphite.test:2003"}, "url": {URL: "http://json.test"}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log journal
				var open atomic.Int64
				cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
				cfg.Interval = time.Minute
				cfg.Push.Dial = func(context.Context, string, string) (net.Conn, error) {
					near, far := net.Pipe() // nobody reads
					open.Add(1)
					go func() {
						for { // until the other end is closed
							if _, err := far.Write(nil); err != nil {
								break
							}
							time.Sleep(time.Second)
						}
						open.Add(-1)
						far.Close()
					}()
					return near, nil
				}
				stop := run(t, metrics.New(cfg))
				time.Sleep(time.Minute + 12*time.Second)
				synctest.Wait()
				if open.Load() != 0 || !strings.Contains(log.text(), "level=WARN") {
					t.Errorf("%d still open; log %s", open.Load(), log.text())
				}
				stop()
				time.Sleep(2 * time.Second)
			})
		})
	}
}

func TestURLPushTellsOfARefusal(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusTeapot) }))
	defer server.Close()
	warned := make(chan string, 100)
	s := metrics.New(metrics.Config{URL: server.URL, Interval: 5 * time.Millisecond, Log: slog.New(slog.NewTextHandler(lines(warned), nil))})
	stop := run(t, s)
	if line := <-warned; !strings.Contains(line, "418") || !strings.Contains(line, server.URL) {
		t.Errorf("log line %s", line)
	}
	stop()
}

type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}
