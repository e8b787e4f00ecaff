package telemetry

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func syslogPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ly")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "log")
}

// daemon is a syslog daemon's socket.
func daemon(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func receive(t *testing.T, conn net.Conn) string {
	t.Helper()
	buf := make([]byte, 4096)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func openTo(t *testing.T, cfg Config) *slog.Logger {
	t.Helper()
	log, closer, err := Open(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := closer.Close(); err != nil {
			t.Error(err)
		}
	})
	return log
}

// split takes the priority, the time and the tag off a message.
func split(t *testing.T, message string) (priority int, text string) {
	t.Helper()
	head, text, ok := strings.Cut(message, " sidecar["+strconv.Itoa(os.Getpid())+"]: ")
	prio, stamp, found := strings.Cut(strings.TrimPrefix(head, "<"), ">")
	priority, err := strconv.Atoi(prio)
	if _, timeErr := time.Parse(time.Stamp, stamp); !ok || !found || err != nil || timeErr != nil {
		t.Fatalf("message %q", message)
	}
	return priority, text
}

func TestGap28SyslogHasLevels(t *testing.T) {
	path := syslogPath(t)
	conn := daemon(t, path)
	log := openTo(t, Config{Level: "trace", Syslog: "sidecar", SyslogSocket: path}).With("role", "sidecar").WithGroup("g")
	for _, tt := range []struct {
		level    slog.Level
		priority int
		want     string
	}{
		{levelTrace, 3<<3 | 7, `level=TRACE msg="a b" role=sidecar g.k="two\nlines"`},
		{slog.LevelDebug, 3<<3 | 7, `level=DEBUG msg="a b" role=sidecar g.k="two\nlines"`},
		{slog.LevelInfo, 3<<3 | 6, `level=INFO msg="a b" role=sidecar g.k="two\nlines"`},
		{slog.LevelWarn, 3<<3 | 4, `level=WARN msg="a b" role=sidecar g.k="two\nlines"`},
		{slog.LevelError, 3<<3 | 3, `level=ERROR msg="a b" role=sidecar g.k="two\nlines"`},
	} {
		log.Log(t.Context(), tt.level, "a b", "k", "two\nlines")
		if priority, text := split(t, receive(t, conn)); priority != tt.priority || text != tt.want {
			t.Errorf("%s: <%d> %s, want <%d> %s", tt.level, priority, text, tt.priority, tt.want)
		}
	}
}

func TestGap28SyslogInJSON(t *testing.T) {
	path := syslogPath(t)
	conn := daemon(t, path)
	log := openTo(t, Config{Format: "json", Syslog: "sidecar", SyslogSocket: path})
	log.Debug("not this one")
	log.Info("connection", "time", "mine")
	if _, text := split(t, receive(t, conn)); text != `{"level":"INFO","msg":"connection","time":"mine"}` {
		t.Errorf("got %s", text)
	}
}

func TestSyslogOverAStreamSocket(t *testing.T) {
	path := syslogPath(t)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	log := openTo(t, Config{Syslog: "sidecar", SyslogSocket: path})
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	log.Info("one")
	if _, text := split(t, receive(t, conn)); text != "level=INFO msg=one\n" {
		t.Errorf("got %q", text)
	}
}

func TestSyslogComesBackWithItsDaemon(t *testing.T) {
	path := syslogPath(t)
	first := daemon(t, path)
	log := openTo(t, Config{Syslog: "sidecar", SyslogSocket: path})
	log.Info("one")
	receive(t, first)
	first.Close()
	os.Remove(path)
	log.Info("lost")
	second := daemon(t, path)
	log.Info("two")
	if _, text := split(t, receive(t, second)); text != "level=INFO msg=two" {
		t.Errorf("got %q", text)
	}
	second.Close() // while it is used
	os.Remove(path)
	third := daemon(t, path)
	log.Info("three")
	if _, text := split(t, receive(t, third)); text != "level=INFO msg=three" {
		t.Errorf("got %q", text)
	}
}

// A daemon that does not read holds up nobody for long.
func TestSyslogDoesNotHang(t *testing.T) {
	path := syslogPath(t)
	daemon(t, path)
	log := openTo(t, Config{Syslog: "sidecar", SyslogSocket: path})
	begin, blocked := time.Now(), false
	for range 1000 { // until the queue is full, and once more
		before := time.Now()
		log.Info("line")
		if blocked = time.Since(before) >= syslogWait; blocked {
			break
		}
	}
	if !blocked || time.Since(begin) > 30*time.Second {
		t.Errorf("blocked: %v, after %s", blocked, time.Since(begin))
	}
}

func TestSyslogSaysWhatIsWrong(t *testing.T) {
	path := syslogPath(t)
	for want, cfg := range map[string]Config{
		"syslog: no daemon answers: dial unixgram " + path + ": connect: no such file or directory": {Syslog: "sidecar", SyslogSocket: path},
		"log: goes to a file or to syslog, not to both: take one away":                              {Syslog: "sidecar", File: path},
		`syslog tag "a: b": give letters, digits and dashes`:                                        {Syslog: "a: b", SyslogSocket: path},
	} {
		if _, _, err := Open(cfg, nil); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
