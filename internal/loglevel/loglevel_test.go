package loglevel_test

import (
	"log/slog"
	"testing"

	"github.com/lanyard-mtls/lanyard/internal/loglevel"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

func TestWhatIsSetIsTold(t *testing.T) {
	for number, name := range types.LogLevel_name {
		level, ok := loglevel.FromAPI(types.LogLevel(number))
		if ok != (number != int32(types.LogLevel_UNSPECIFIED)) {
			t.Errorf("%s: %v", name, ok)
		}
		if ok && loglevel.ToAPI(level) != types.LogLevel(number) {
			t.Errorf("%s is told as %s", name, loglevel.ToAPI(level))
		}
	}
	if _, ok := loglevel.FromAPI(99); ok {
		t.Error("99 is a level")
	}
}

func TestLevelsBetweenSayMore(t *testing.T) {
	for level, want := range map[slog.Level]types.LogLevel{
		slog.LevelInfo + 1: types.LogLevel_INFO, slog.LevelInfo - 1: types.LogLevel_DEBUG, slog.LevelDebug - 9: types.LogLevel_TRACE, slog.LevelError + 99: types.LogLevel_PANIC,
	} {
		if got := loglevel.ToAPI(level); got != want {
			t.Errorf("%d: %s, want %s", level, got, want)
		}
	}
}
