package loggercli_test

import (
	"strings"
	"testing"

	"github.com/lanyard-mtls/lanyard/internal/cli/loggercli"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

func TestLevels(t *testing.T) {
	for _, name := range loggercli.Levels() {
		if l, err := loggercli.ParseLevel(strings.ToUpper(name)); err != nil || !strings.EqualFold(l.String(), name) {
			t.Errorf("%s: %s, %v", name, l, err)
		}
	}
	if l, err := loggercli.ParseLevel("warning"); err != nil || l != types.LogLevel_WARN {
		t.Errorf("warning: %s, %v", l, err)
	}
	for text, want := range map[string]string{"": "is missing", "debgu": `did you mean "debug"`, "loud": "accepted: panic", "unspecified": "is unknown"} {
		if _, err := loggercli.ParseLevel(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
