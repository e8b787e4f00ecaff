package integration

import (
	"context"
	"errors"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// said is what a command line printed, with what differs from time to time taken out.
type said struct {
	Stdout, Stderr string
	Code           int
}

var varies = []struct {
	pattern *regexp.Regexp
	becomes string
}{
	{regexp.MustCompile(`\d+(\.\d+)?(ns|µs|ms|s)\b`), "DURATION"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( \+0000 UTC|Z)`), "TIME"},
	{regexp.MustCompile(`ey[\w-]+\.ey[\w-]+\.[\w-]+`), "TOKEN"},
	{regexp.MustCompile(`"(x509_svid|x509_svid_key|bundle|spiffe://[^"]+)":"[A-Za-z0-9+/=]{99,}"`), `"$1":"BASE64"`},
	{regexp.MustCompile(`"(iat|exp|uptime|expires_at|last_sync_success)":"?\d+"?`), `"$1":N`},
	{regexp.MustCompile(`ly\d+/agent\d+`), "AGENT"},
	{regexp.MustCompile(`join_token/[0-9a-f-]{36}`), "join_token/ID"},
	{regexp.MustCompile(`(SVIDs: +|_count":)\d+`), "${1}N"},
	{regexp.MustCompile(`(?m)^(time=|hint: ).*\n`), ""}, // a log, and what ours adds
}

func (v *agentVerbs) run(cli string, agent *harness.Agent, command string) said {
	v.Helper()
	command = strings.NewReplacer("SOCKET", agent.Socket, "ADMIN", agent.Admin, "CONF", agent.Conf).Replace(command)
	args := strings.Fields(command)
	n := 0
	for n < len(args) && !strings.HasPrefix(args[n], "-") {
		n++
	}
	for i := range args[:n] {
		v.tried[strings.Join(args[:i+1], " ")] = true
	}
	ctx, cancel := context.WithTimeout(v.Context(), fetchLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, cli, args...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		v.Fatal(err)
	}
	return said{steady(stdout.String()), steady(stderr.String()), cmd.ProcessState.ExitCode()}
}

var jsonSpace = regexp.MustCompile(`\s*([][{},:])\s*`)

// steady takes out what differs from time to time, and from agent to agent. Where there is JSON, space says nothing: SPIRE
// writes some of it with random space.
func steady(text string) string {
	if strings.Contains(text, "{") {
		text = jsonSpace.ReplaceAllString(text, "$1")
	}
	for _, one := range varies {
		text = one.pattern.ReplaceAllString(text, one.becomes)
	}
	return text
}

// everyAgentVerb are the commands that a real spire-agent lists, but run, which needs no comparing here.
func everyAgentVerb(t *testing.T, spire string) []string {
	t.Helper()
	var verbs []string
	for _, group := range []string{"", "api", "debug", "logger"} {
		_, err := harness.Run(t.Context(), spire, strings.Fields(group)...)
		if err == nil {
			t.Fatalf("spire-agent %s lists nothing", group)
		}
		_, list, ok := strings.Cut(err.Error(), map[bool]string{true: "commands are:", false: "Subcommands:"}[group == ""])
		if !ok {
			t.Fatalf("spire-agent %s: %v", group, err)
		}
		for line := range strings.Lines(strings.TrimSpace(list)) {
			if verb := strings.Fields(line)[0]; verb != "run" {
				verbs = append(verbs, strings.TrimSpace(group+" "+verb))
			}
		}
	}
	return verbs
}
