package integration

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

var (
	consoleBlock = regexp.MustCompile("(?s)```console\n(.*?)```")
	remark       = regexp.MustCompile(` +#.*`)
	loopback     = regexp.MustCompile(`127\.0\.0\.1:\d+`)
)

// readmeCommands are the lines a reader would type, in order.
func readmeCommands(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var commands []string
	for _, block := range consoleBlock.FindAllStringSubmatch(string(text), -1) {
		for line := range strings.Lines(block[1]) {
			if command, ok := strings.CutPrefix(line, "$ "); ok {
				commands = append(commands, strings.TrimSpace(remark.ReplaceAllString(command, "")))
			}
		}
	}
	if len(commands) == 0 {
		t.Fatal("no commands in README.md")
	}
	return commands
}

// TestReadmeCommandsWork types what the README says, with free ports in place of those it names.
func TestReadmeCommandsWork(t *testing.T) {
	t.Parallel()
	s := harness.NewStage(t, bin)
	ports := map[string]string{"127.0.0.1:8000": s.WebServer(greeting)}
	var out string
	for _, command := range readmeCommands(t) {
		command = loopback.ReplaceAllStringFunc(command, func(addr string) string {
			if ports[addr] == "" {
				ports[addr] = s.Addr()
			}
			return ports[addr]
		})
		command = strings.Replace(command, "lanyard up", "lanyard up -serverPort 0", 1)
		shell := func(ctx context.Context, command string) *exec.Cmd {
			cmd := exec.CommandContext(ctx, "sh", "-c", command)
			cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "SPIFFE_ENDPOINT_SOCKET=",
				"LANYARD_STATE_DIR="+s.Path("state"), "LANYARD_RUN_DIR="+s.Path("run"))
			return cmd
		}
		if service, ok := strings.CutSuffix(command, "&"); ok {
			s.StartCmd(service, shell(context.WithoutCancel(t.Context()), "exec "+service))
			continue
		}
		s.Until(20*time.Second, command, func(ctx context.Context) error {
			text, err := shell(ctx, command).Output()
			out = string(text)
			return err
		})
	}
	if out != greeting {
		t.Errorf("the last command got %q, want %q", out, greeting)
	}
}
