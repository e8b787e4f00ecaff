package integration

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

var (
	fenced   = regexp.MustCompile("(?s)```(\\w+) ?([^\n]*)\n(.*?)```")
	remark   = regexp.MustCompile(` +#.*`)
	loopback = regexp.MustCompile(`127\.0\.0\.1:\d+`)
	portKey  = regexp.MustCompile(`(_port *= *)(\d+)`)
)

// page is what of a document can be run.
type page struct {
	files    map[string]string // of blocks that begin with ```LANGUAGE NAME
	commands []command         // of ```console blocks, in order
	samples  []string          // ```hcl blocks that are whole configurations of a sidecar
}

// command is a line that a reader would type, and lines of what it then says.
type command struct {
	line string
	says []string
}

func readPage(t *testing.T, name string) page {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", name))
	if err != nil {
		t.Fatal(err)
	}
	p := page{files: map[string]string{}}
	for _, block := range fenced.FindAllStringSubmatch(string(text), -1) {
		language, name, content := block[1], block[2], block[3]
		if language == "console" {
			p.console(content)
			continue
		}
		if name != "" {
			p.files[name] = content
		}
		if language == "hcl" && strings.Contains(content, "tunnel \"") {
			p.samples = append(p.samples, content)
		}
	}
	if len(p.commands) == 0 {
		t.Fatalf("no commands in %s", name)
	}
	return p
}

func (p *page) console(content string) {
	for line := range strings.Lines(content) {
		line = strings.TrimSpace(line)
		if typed, ok := strings.CutPrefix(line, "$ "); ok {
			p.commands = append(p.commands, command{line: strings.TrimSpace(remark.ReplaceAllString(typed, ""))})
		} else if last := len(p.commands) - 1; last >= 0 && line != "" && line != "..." {
			p.commands[last].says = append(p.commands[last].says, line)
		}
	}
}

// play writes the files and types the commands, with free ports in place of those it names (127.0.0.1:PORT, and what is set to a
// key like bind_port), but for those in ports. A command
// is tried until it succeeds or, if the page shows its output, until it says that. It returns what each said.
func (p page) play(s *harness.Stage, ports map[string]string) (said []string) {
	s.Helper()
	here := func(text string) string {
		text = portKey.ReplaceAllStringFunc(text, func(setting string) string {
			key := portKey.FindStringSubmatch(setting)
			if ports[key[2]] == "" {
				ports[key[2]] = strings.TrimPrefix(s.Addr(), "127.0.0.1:")
			}
			return key[1] + ports[key[2]]
		})
		return loopback.ReplaceAllStringFunc(text, func(addr string) string {
			if ports[addr] == "" {
				ports[addr] = s.Addr()
			}
			return ports[addr]
		})
	}
	for name, text := range p.files {
		s.WriteFile(name, here(text))
	}
	shell := func(ctx context.Context, line string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, "sh", "-c", line)
		cmd.Dir = s.Dir
		cmd.Env = append(os.Environ(), "PATH="+strings.Join([]string{bin, os.Getenv("PATH"), os.Getenv("LANYARD_PEERS")}, ":"), "SPIFFE_ENDPOINT_SOCKET=",
			"LANYARD_STATE_DIR="+s.Path("state"), "LANYARD_RUN_DIR="+s.Path("run"))
		return cmd
	}
	for _, c := range p.commands {
		line := strings.Replace(here(c.line), "lanyard up", "lanyard up -serverPort 0", 1)
		if service, ok := strings.CutSuffix(line, "&"); ok {
			s.StartCmd(service, shell(context.WithoutCancel(s.Context()), "exec "+service))
			continue
		}
		var out string
		s.Until(20*time.Second, line, func(ctx context.Context) error {
			text, err := shell(ctx, line).Output()
			out = string(text)
			for _, want := range c.says {
				if !strings.Contains(out, here(want)) {
					return fmt.Errorf("no word of %q in %q, %v", here(want), out, err)
				}
			}
			if len(c.says) > 0 {
				return nil
			}
			return err
		})
		said = append(said, out)
	}
	return said
}

// TestReadmeCommandsWork types what the README says.
func TestReadmeCommandsWork(t *testing.T) {
	t.Parallel()
	s := harness.NewStage(t, bin)
	said := readPage(t, "README.md").play(s, map[string]string{"127.0.0.1:8000": s.WebServer(greeting)})
	if !slices.Contains(said, greeting) {
		t.Errorf("no command got %q: %q", greeting, said)
	}
}

// TestSidecarGuideCommandsWork types what the sidecar's guide says.
func TestSidecarGuideCommandsWork(t *testing.T) {
	t.Parallel()
	s := harness.NewStage(t, bin)
	readPage(t, "docs/guides/sidecar.md").play(s, map[string]string{"127.0.0.1:8000": s.WebServer(greeting)})
}

// TestJoinKeyGuideCommandsWork types what the guide to joining a fleet says.
func TestJoinKeyGuideCommandsWork(t *testing.T) {
	t.Parallel()
	readPage(t, "docs/guides/join-key.md").play(harness.NewStage(t, bin), map[string]string{})
}

// TestEntriesGuideCommandsWork types what the guide to entries in files says.
func TestEntriesGuideCommandsWork(t *testing.T) {
	t.Parallel()
	readPage(t, "docs/guides/entries.md").play(harness.NewStage(t, bin), map[string]string{})
}

// TestOIDCGuideCommandsWork types what the guide to JWT-SVIDs says.
func TestOIDCGuideCommandsWork(t *testing.T) {
	t.Parallel()
	readPage(t, "docs/guides/oidc.md").play(harness.NewStage(t, bin), map[string]string{})
}

// TestAgentGuideCommandsWork types what the agent's guide says.
func TestAgentGuideCommandsWork(t *testing.T) {
	t.Parallel()
	readPage(t, "docs/guides/agent.md").play(harness.NewStage(t, bin), map[string]string{})
}

// TestInteropFromSPIREGuideCommandsWork types what the guide from SPIRE says, with a real spire-server and spire-agent.
func TestInteropFromSPIREGuideCommandsWork(t *testing.T) {
	t.Parallel()
	peer(t, "spire-server")
	peer(t, "spire-agent")
	readPage(t, "docs/guides/from-spire.md").play(harness.NewStage(t, bin), map[string]string{})
}

// TestSidecarSamplesOfDocumentsAreValid checks each configuration that they show.
func TestSidecarSamplesOfDocumentsAreValid(t *testing.T) {
	t.Parallel()
	s := harness.NewStage(t, bin)
	for _, name := range []string{"README.md", "docs/guides/sidecar.md"} {
		for i, sample := range readPage(t, name).samples {
			file := s.WriteFile(fmt.Sprintf("sample%d.hcl", i), sample)
			if out, err := exec.Command(s.SidecarBinary(), "validate", "-config", file).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s\n%s", name, err, out, sample)
			}
		}
	}
}

// TestGuideCloseTimeoutCountsSilence: an answer that takes longer than the close timeout, but never pauses for so long, is
// whole. With ghostunnel it is cut.
func TestGuideCloseTimeoutCountsSilence(t *testing.T) {
	t.Parallel()
	s := newSVIDs(t)
	const answer = "an answer that takes its time"
	over := make(chan struct{})
	target := serve(t, func(conn *net.TCPConn) {
		question, _ := io.ReadAll(conn)
		if string(question) == "never" {
			<-over
			return
		}
		for _, letter := range []byte(answer) {
			<-time.After(100 * time.Millisecond)
			if _, err := conn.Write([]byte{letter}); err != nil {
				return
			}
		}
	})
	t.Cleanup(func() { close(over) })
	server := s.sidecar("server", "server", target, "--allow-uri", s.id("client"))
	client := s.sidecar("client", "client", server.Listen, "--verify-uri", s.id("server"), "--close-timeout", "2s")
	server.Probed(1)
	ask := func(question string) (string, error) {
		conn := open(t, client.Listen)
		if _, err := io.WriteString(conn, question); err != nil {
			t.Fatal(err)
		}
		if err := conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(conn)
		return string(got), err
	}
	if got, err := ask("slowly"); got != answer || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got, _ := ask("never"); got != "" {
		t.Errorf("%q", got)
	}
	records := connections(t, client, 2)
	for i, want := range []string{"closed", "close timeout"} {
		if i < len(records) && records[i]["cause"] != want {
			t.Errorf("cause %q, want %q: %v", records[i]["cause"], want, records[i])
		}
	}
}

// TestGuideACMEKeepsCertificatesInTheDataFolder asks an authority that is not there: the folder is made before.
func TestGuideACMEKeepsCertificatesInTheDataFolder(t *testing.T) {
	t.Parallel()
	s := harness.NewStage(t, bin)
	cmd := exec.Command(s.SidecarBinary(), "server", "--listen", "127.0.0.1:0", "--target", "127.0.0.1:1", "--allow-all",
		"--auto-acme-cert", "sidecar.test", "--auto-acme-email", "ops@sidecar.test", "--auto-acme-agree-to-tos", "--auto-acme-ca", "https://127.0.0.1:1/directory")
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+s.Path("data"))
	s.StartCmd("server", cmd)
	s.Until(fetchLimit, "the folder for certificates", func(context.Context) error {
		_, err := os.Stat(s.Path("data") + "/certmagic")
		return err
	})
}
