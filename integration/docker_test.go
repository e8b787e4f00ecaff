package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// dockerNode is a node with a Docker daemon, whose containers have the agent's socket mounted.
type dockerNode struct {
	*harness.Docker
	issuer *harness.Issuer
	agent  *harness.Agent
}

const dockerImage = "lanyard:test"

func newDockerNode(t *testing.T) *dockerNode {
	t.Helper()
	if why := harness.DockerMissing(); why != "" {
		t.Skip(why)
	}
	s := harness.NewStage(t, bin)
	n := &dockerNode{Docker: harness.StartDocker(s)} // it starts while the issuer does
	n.issuer = harness.StartIssuer(s, harness.IssuerSpec{})
	n.startAgent(t, fmt.Sprintf("docker_socket_path = %q", "unix://"+n.Socket))
	n.entry("/web", "docker:label:app:web", "docker:env:TIER=gold")
	n.entry("/db", "docker:label:app:db", "docker:name:db", "docker:image_id:"+dockerImage)
	n.Ready()
	n.Image(dockerImage)
	return n
}

// startAgent starts an agent that attests containers.
func (n *dockerNode) startAgent(t *testing.T, pluginData string) {
	t.Helper()
	n.agent = harness.NewAgent(n.issuer, harness.AgentSpec{Attestor: fmt.Sprintf(`NodeAttestor "join_token" {
    plugin_data {}
  }
  WorkloadAttestor "docker" {
    plugin_data {
      %s
    }
  }`, pluginData)})
	n.agent.Start(n.issuer.Token(n.issuer.ID("/node")))
}

func (n *dockerNode) entry(path string, selectors ...string) {
	n.issuer.Helper()
	args := []string{"entry", "create", "-parentID", n.issuer.ID("/node"), "-spiffeID", n.issuer.ID(path)}
	for _, s := range selectors {
		args = append(args, "-selector", s)
	}
	n.issuer.Admin(args...)
}

// watch starts a container that prints each SVID that it is given.
func (n *dockerNode) watch(name string, args ...string) {
	n.Helper()
	args = append([]string{"run", "-d", "--name", name, "--network", "none",
		"-v", filepath.Dir(n.agent.Socket) + ":/run/agent", "-v", n.Bin + "/lanyard:/lanyard:ro"}, args...)
	n.Docker.Docker(append(args, dockerImage, "/lanyard", "agent", "api", "watch", "-socketPath", "/run/agent/api.sock")...)
}

// is waits until a container has the SVID, and fails if it has another.
func (n *dockerNode) is(t *testing.T, name, path string) {
	t.Helper()
	out := n.Logs(name, n.issuer.ID(path))
	for _, other := range []string{"/web", "/db"} {
		if other != path && strings.Contains(out, n.issuer.ID(other)) {
			t.Errorf("%s has %s:\n%s", name, other, out)
		}
	}
}

func (n *dockerNode) explain(pid int) string {
	n.Helper()
	return n.Run(n.Bin+"/lanyard", "agent", "explain", "-socketPath", n.agent.Admin, "-pid", fmt.Sprint(pid))
}

func TestDocker(t *testing.T) {
	t.Parallel()
	n := newDockerNode(t)
	n.watch("web", "--label", "app=web", "--env", "TIER=gold")
	n.watch("db", "--label", "app=db", "--cgroupns", "private", "--user", "1234:2345")
	n.watch("other", "--label", "app=web", "--env", "TIER=silver")

	t.Run("each container has its own SVID", func(t *testing.T) {
		n.is(t, "web", "/web")
		n.is(t, "db", "/db")
	})
	t.Run("one has none and the operator learns why", func(t *testing.T) {
		out := n.Logs("other", "no identity issued")
		if strings.Contains(out, n.issuer.ID("")) || strings.Contains(out, "TIER") {
			t.Errorf("the caller was told:\n%s", out)
		}
		for where, said := range map[string]string{
			"log":     strings.Join(n.agent.Process.Log.Lines(), "\n"),
			"explain": n.explain(n.PID("other")),
		} {
			for _, want := range []string{"docker:env:TIER=gold", n.issuer.ID("/web"), "docker:label:app:web"} {
				if !strings.Contains(said, want) {
					t.Errorf("%s does not say %s:\n%s", where, want, said)
				}
			}
		}
	})
	t.Run("docker exec and --pid=host", func(t *testing.T) {
		n.watch("host", "--label", "app=web", "--env", "TIER=gold", "--pid", "host", "--cgroupns", "host")
		out := n.Docker.Docker("exec", "web", "/lanyard", "agent", "api", "fetch", "x509", "-socketPath", "/run/agent/api.sock")
		if !strings.Contains(out, n.issuer.ID("/web")) {
			t.Errorf("docker exec: %s", out)
		}
		n.is(t, "host", "/web")
	})
	t.Run("imitation", func(t *testing.T) { n.imitate(t) })
	t.Run("daemon restarted", func(t *testing.T) { n.restart(t) })
	t.Run("container stopped", func(t *testing.T) {
		before := n.connections(t)
		n.Docker.Docker("kill", "web", "db")
		n.Until(10*time.Second, "their connections to end", func(context.Context) error {
			if now := n.connections(t); now > before-2 {
				return fmt.Errorf("%d of %d are open", now, before)
			}
			return nil
		})
	})
}

// The same where there is cgroup v2 alone, as systems are by now: in a mount namespace in which nothing else is mounted.
func TestDockerCgroup2(t *testing.T) {
	t.Parallel()
	if why := harness.DockerMissing(); why != "" {
		t.Skip(why)
	}
	if _, err := os.Stat("/sys/fs/cgroup/unified/cgroup.procs"); err != nil {
		t.Skip("cgroup v1 and v2 are not side by side here: TestDocker shows what there is")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "-m", "sh", "-c",
		`mount --make-rprivate / && umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec "$0" -test.run '^TestDocker$' -test.v`, exe)
	cmd.Env = append(os.Environ(), "LANYARD_BIN="+bin)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestDocker ") {
		t.Errorf("%v:\n%s", err, out)
	}
}

// imitate has a user call from a cgroup of its own that is called like the container.
func (n *dockerNode) imitate(t *testing.T) {
	tree, err := harness.NewSubtree(n.Stage, 65534)
	if err != nil {
		t.Skip("no cgroups can be made here: ", err)
	}
	n.Run("chmod", "755", n.Dir, n.Dir+"/agent1")
	id := n.Docker.Docker("inspect", "-f", "{{.Id}}", "web")
	dir := tree.Dir + "/docker/" + id
	p := tree.Start("imitator", fmt.Sprintf("mkdir -p %s && echo $$ >%s/cgroup.procs && cat /proc/self/cgroup && exec %s/lanyard agent api fetch x509 -timeout 2s -socketPath %s",
		dir, dir, n.Bin, n.agent.Socket))
	err = p.Wait()
	said := strings.Join(p.Log.Lines(), "\n")
	if err == nil || strings.Contains(said, n.issuer.ID("/web")) || !strings.Contains(said, "/docker/"+id) {
		t.Errorf("ended with %v, said:\n%s", err, said)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := n.agent.Process.WaitFor(ctx, "but not in that container"); err != nil {
		t.Error(err)
	}
}

// restart makes an entry while the daemon is away: who is known already is given its SVID, and who comes later all.
func (n *dockerNode) restart(t *testing.T) {
	pid := n.PID("web")
	n.Stop()
	n.entry("/later", "docker:label:app:web", "docker:env:TIER=gold")
	n.Until(20*time.Second, "web to have one more SVID while the daemon is away", func(context.Context) error {
		said := n.explain(pid)
		if !strings.Contains(said, n.issuer.ID("/later")) || strings.Contains(said, "failed") {
			return fmt.Errorf("of web it is said:\n%s", said)
		}
		return nil
	})
	n.Launch()
	n.Ready()
	n.watch("again", "--label", "app=web", "--env", "TIER=gold")
	n.is(t, "again", "/web")
	n.Logs("web", n.issuer.ID("/later")) // its stream had it; the daemon is back to tell
}

// connections counts the callers that the agent holds on to: each by a pidfd.
func (n *dockerNode) connections(t *testing.T) int {
	t.Helper()
	fds := fmt.Sprintf("/proc/%d/fd", n.agent.Process.PID())
	names, err := os.ReadDir(fds)
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, name := range names {
		if to, err := os.Readlink(filepath.Join(fds, name.Name())); err == nil && strings.Contains(to, "pidfd") {
			count++
		}
	}
	return count
}

// Root's Podman answers as Docker does, on a socket of its own.
func TestDockerPodman(t *testing.T) {
	t.Parallel()
	if why := harness.PodmanMissing(); why != "" {
		t.Skip(why)
	}
	s := harness.NewStage(t, bin)
	p := harness.StartPodman(s)
	n := &dockerNode{issuer: harness.StartIssuer(s, harness.IssuerSpec{})}
	n.startAgent(t, fmt.Sprintf("docker_socket_path = \"/nowhere/docker.sock\"\n      podman_socket_path = %q", "unix://"+p.Socket))
	n.entry("/web", "docker:label:app:web", "docker:env:TIER=gold", "docker:name:web")
	archive := s.Path("rootfs.tar")
	s.Run("mkdir", "-p", s.Path("rootfs", "empty"))
	s.Run("tar", "-C", s.Path("rootfs"), "-cf", archive, ".")
	p.Podman("import", archive, dockerImage)
	// Its digest, with the algorithm before it as Docker writes it.
	n.entry("/digest", "docker:image_config_digest:sha256:"+strings.TrimPrefix(p.Podman("images", "-q", "--no-trunc"), "sha256:"))
	out := p.Podman("run", "--rm", "--name", "web", "--network", "none", "--cgroup-parent", p.CgroupParent(), "--label", "app=web", "--env", "TIER=gold",
		"-v", filepath.Dir(n.agent.Socket)+":/run/agent", "-v", s.Bin+"/lanyard:/lanyard:ro", dockerImage,
		"/lanyard", "agent", "api", "fetch", "x509", "-socketPath", "/run/agent/api.sock")
	for _, path := range []string{"/web", "/digest"} {
		if !strings.Contains(out, n.issuer.ID(path)) {
			t.Errorf("it has not %s:\n%s\nthe agent said:\n%s", path, out, n.agent.Process.Log.Tail(20))
		}
	}
}
