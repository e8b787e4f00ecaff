package telemetry

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseLevelTakesSPIREsNames(t *testing.T) {
	for name, want := range map[string]slog.Level{
		"": slog.LevelInfo, "DEBUG": slog.LevelDebug, "info": slog.LevelInfo, "Warn": slog.LevelWarn, "warning": slog.LevelWarn,
		"ERROR": slog.LevelError, "trace": levelTrace, "fatal": levelFatal,
	} {
		if got, err := ParseLevel(name); err != nil || got != want {
			t.Errorf("ParseLevel(%q) = %v, %v; want %v", name, got, err, want)
		}
	}
	for name, want := range map[string]string{
		"debgu": `log level "debgu" is unknown; did you mean "debug"?`,
		"7":     `log level "7" is unknown; accepted: debug, info, warn, error, trace`,
	} {
		if _, err := ParseLevel(name); err == nil || err.Error() != want {
			t.Errorf("ParseLevel(%q): %v, want %s", name, err, want)
		}
	}
}

func TestOpenNamesBothFaults(t *testing.T) {
	_, _, err := Open(Config{Level: "loud", Format: "jsn"}, &bytes.Buffer{})
	if err == nil || err.Error() != "log level \"loud\" is unknown; accepted: debug, info, warn, error, trace\nlog format \"jsn\" is unknown; did you mean \"json\"?" {
		t.Errorf("got %v", err)
	}
}

func TestOpenAppendsToTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for _, msg := range []string{"one", "two"} {
		log, closer, err := Open(Config{Format: "json", File: path}, nil)
		if err != nil {
			t.Fatal(err)
		}
		log.Info(msg)
		log.Debug("not this one")
		if err := closer.Close(); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || strings.Count(string(got), "\n") != 2 || !strings.Contains(string(got), `"msg":"two"`) {
		t.Errorf("%v: %s", err, got)
	}
}

func TestOpenSaysWhichLogFileCannotBeMade(t *testing.T) {
	_, _, err := Open(Config{File: filepath.Join(t.TempDir(), "no", "log")}, nil)
	if !errors.Is(err, os.ErrNotExist) || !strings.HasPrefix(err.Error(), "log file: open ") {
		t.Errorf("got %v", err)
	}
}

func TestTerminalLinesAreWhole(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(newTerminal(&b, &slog.HandlerOptions{Level: slog.LevelInfo}))
	log.With("role", "agent").WithGroup("peer").Warn("refused", "id", "spiffe://a/b", "why", "no rule", slog.Group("at", "n", 1))
	log.Info("a\x1b]0;title\x07b", "k", "line\nbreak", "empty", "")
	log.Debug("not this one")
	got := strings.NewReplacer("\x1b[2m", "", "\x1b[0m", "", "\x1b[33m", "", "\x1b[32m", "").Replace(b.String())
	lines := strings.Split(got, "\n")
	if len(lines) != 3 || lines[0][9:] != `WARN  refused  role=agent peer.id=spiffe://a/b peer.why="no rule" peer.at.n=1` {
		t.Errorf("got %q", got)
	}
	if strings.ContainsAny(lines[1], "\x1b\x07") || !strings.Contains(lines[1], `empty=""`) {
		t.Errorf("got %q", lines[1])
	}
}

func TestNewLoggerWritesTextWhereNoTerminalIs(t *testing.T) {
	var b bytes.Buffer
	log, err := NewLogger(&b, "", "text")
	if err != nil {
		t.Fatal(err)
	}
	log.Info("ready", "addr", "127.0.0.1:1")
	if !strings.HasSuffix(b.String(), "level=INFO msg=ready addr=127.0.0.1:1\n") {
		t.Errorf("got %q", b.String())
	}
}
