package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// PodmanMissing says why root's Podman can't be run here; "": it can.
func PodmanMissing() string {
	if os.Geteuid() != 0 {
		return "Podman's service needs root"
	}
	for _, name := range []string{"podman", "runc"} {
		if _, err := exec.LookPath(name); err != nil {
			return name + " is not installed: integration/tools/deps.sh podman"
		}
	}
	return ""
}

// Podman is root's Podman, with storage and a service of the test's own.
type Podman struct {
	*Stage
	Socket string

	dir    string
	parent string
}

// StartPodman starts the service, which answers Docker's API, and waits until it does.
func StartPodman(s *Stage) *Podman {
	s.Helper()
	p := &Podman{Stage: s, parent: fmt.Sprintf("lypm%d", os.Getpid())}
	// The limits: it may not raise those of its containers where it lacks CAP_SYS_RESOURCE.
	conf := s.WriteFile("podman/containers.conf", `[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
`)
	p.dir = filepath.Dir(conf)
	p.Socket = p.dir + "/podman.sock"
	s.Cleanup(p.close)
	cmd := p.command(context.WithoutCancel(s.Context()), "system", "service", "--time", "0", "unix://"+p.Socket)
	service := s.StartCmd("podman", cmd)
	if _, err := service.WaitFor(s.Context(), "API service listening"); err != nil {
		s.Fatalf("%v", err)
	}
	return p
}

func (p *Podman) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "podman", append([]string{"--root", p.dir + "/root", "--runroot", p.dir + "/run", "--tmpdir", p.dir + "/tmp",
		"--log-level", "info"}, args...)...)
	cmd.Env = append(os.Environ(), "CONTAINERS_CONF="+p.dir+"/containers.conf")
	return cmd
}

// Podman runs a command of Podman's command line.
func (p *Podman) Podman(args ...string) string {
	p.Helper()
	out, err := p.command(p.Context(), args...).Output()
	if exit, ok := err.(*exec.ExitError); ok {
		p.Fatalf("podman %s: %v: %s", strings.Join(args, " "), err, exit.Stderr)
	}
	if err != nil {
		p.Fatalf("%v", err)
	}
	return strings.TrimSpace(string(out))
}

// CgroupParent is where containers are to be put, so that their cgroups can be removed.
func (p *Podman) CgroupParent() string { return "/" + p.parent }

func (p *Podman) close() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.Context()), time.Minute)
	defer cancel()
	if out, err := p.command(ctx, "rm", "--all", "--force", "--time", "0").CombinedOutput(); err != nil {
		p.Logf("%v: %s", err, out)
	}
	unmountBelow(p.Stage, p.dir)
	dirs, _ := filepath.Glob("/sys/fs/cgroup/*/" + p.parent)
	for _, dir := range append(dirs, "/sys/fs/cgroup/"+p.parent) {
		removeTree(dir)
	}
}
