package agentcmd

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/durable"
	"github.com/lanyard-mtls/lanyard/nodeagent"
)

func TestADataDirectoryInUseNamesTheWayToTakeIt(t *testing.T) {
	locked := fmt.Errorf("data_dir: %w", durable.ErrLocked)
	for dialect, want := range map[cli.Dialect]bool{cli.Lanyard: true, cli.SPIREAgent: false} {
		var told bytes.Buffer
		env := &cli.Env{Stdout: io.Discard, Stderr: &told, Dialect: dialect}
		cmd := &cobra.Command{Use: "run", RunE: func(*cobra.Command, []string) error { return advise(env, locked) }}
		cli.Execute(t.Context(), env, cmd, nil)
		if got := strings.Contains(told.String(), "-takeOver"); got != want || !strings.Contains(told.String(), "hint:") {
			t.Errorf("%v: %s", dialect, &told)
		}
	}
}

func TestListenersOfTheOperatorAreLogged(t *testing.T) {
	var log bytes.Buffer
	tellAddrs(slog.New(slog.NewTextHandler(&log, nil)), nodeagent.Addrs{Metrics: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4711}})
	if !strings.Contains(log.String(), "metrics=127.0.0.1:4711") || strings.Contains(log.String(), "admin_socket") {
		t.Error(log.String())
	}
}
