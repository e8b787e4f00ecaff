package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// DockerMissing says why no Docker daemon can be started here; "": it can.
func DockerMissing() string {
	if os.Geteuid() != 0 {
		return "a Docker daemon needs root"
	}
	for _, name := range []string{"dockerd", "docker", "runc"} {
		if _, err := exec.LookPath(name); err != nil {
			return name + " is not installed: integration/tools/deps.sh docker"
		}
	}
	return ""
}

// Docker is a daemon of the test's own, beside any of the machine's. It has a network namespace to itself, so that none
// of its rules touch the machine's, and its containers have no network at all.
type Docker struct {
	*Stage
	Socket  string
	Process *Process

	dir    string
	parent string // the cgroup of its containers
}

// StartDocker starts a daemon and waits for nothing: see Ready. Its containers outlive it when it is restarted.
func StartDocker(s *Stage) *Docker {
	s.Helper()
	d := &Docker{Stage: s, dir: s.Path("docker", "x"), parent: fmt.Sprintf("lydk%d", os.Getpid())}
	d.dir = filepath.Dir(d.dir)
	d.Socket = filepath.Join(d.dir, "docker.sock")
	s.Cleanup(d.close)
	d.Launch()
	return d
}

// Launch starts the daemon, again after Stop.
func (d *Docker) Launch() {
	d.Helper()
	cmd := exec.Command("dockerd", "--data-root", d.dir+"/root", "--exec-root", d.dir+"/exec", "--pidfile", d.dir+"/pid",
		"-H", "unix://"+d.Socket, "--storage-driver", "overlay2", "--bridge", "none", "--iptables=false", "--ip6tables=false",
		"--cgroup-parent", "/"+d.parent, "--live-restore", "--config-file", d.WriteFile("docker/daemon.json", "{}")) // not the machine's
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	d.Process = d.StartCmd("dockerd", cmd)
}

// Ready waits until the daemon answers.
func (d *Docker) Ready() {
	d.Helper()
	err := d.Process.ready(d.Context(), startLimit, func(ctx context.Context) error {
		_, err := d.Try(ctx, "version")
		return err
	})
	if err != nil {
		d.Fatalf("%v", err)
	}
}

// Stop stops the daemon; its containers go on.
func (d *Docker) Stop() {
	d.Helper()
	_ = d.Process.Stop(20 * time.Second)
	if d.Process.Stuck() {
		d.Fatalf("dockerd did not stop")
	}
}

// Docker runs a command of Docker's command line.
func (d *Docker) Docker(args ...string) string {
	d.Helper()
	out, err := d.Try(d.Context(), args...)
	if err != nil {
		d.Fatalf("%v", err)
	}
	return out
}

// Try is Docker for where an error is expected. The output is trimmed.
func (d *Docker) Try(ctx context.Context, args ...string) (string, error) {
	out, err := Run(ctx, "docker", append([]string{"-H", "unix://" + d.Socket}, args...)...)
	return strings.TrimSpace(out), err
}

// Image makes an image that has an empty directory and nothing else: programs are mounted into it.
func (d *Docker) Image(name string) {
	d.Helper()
	root := d.Path("rootfs", "empty")
	d.Run("mkdir", "-p", root)
	archive := d.Path("rootfs.tar")
	d.Run("tar", "-C", filepath.Dir(root), "-cf", archive, ".")
	d.Docker("import", archive, name)
}

// PID is the process ID of a container's first process.
func (d *Docker) PID(container string) int {
	d.Helper()
	pid, err := strconv.Atoi(d.Docker("inspect", "-f", "{{.State.Pid}}", container))
	if err != nil {
		d.Fatalf("%v", err)
	}
	return pid
}

// Logs waits until a container's output holds text, and returns the output so far.
func (d *Docker) Logs(container, text string) string {
	d.Helper()
	var out string
	d.Until(startLimit, container+" to say "+text, func(ctx context.Context) error {
		cmd := exec.CommandContext(ctx, "docker", "-H", "unix://"+d.Socket, "logs", container)
		both, err := cmd.CombinedOutput()
		if out = string(both); err == nil && !strings.Contains(out, text) {
			err = fmt.Errorf("it said:\n%s", out)
		}
		return err
	})
	return out
}

// close removes the containers, stops the daemon and removes what it leaves behind.
func (d *Docker) close() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(d.Context()), time.Minute)
	defer cancel()
	if !d.Process.Running() { // its containers do
		d.Launch()
	}
	err := d.Process.ready(ctx, startLimit, func(ctx context.Context) error {
		ids, err := d.Try(ctx, "ps", "-aq")
		if err == nil && ids != "" {
			_, err = d.Try(ctx, append([]string{"rm", "-f"}, strings.Fields(ids)...)...)
		}
		return err
	})
	if err != nil {
		d.Logf("%v", err)
	}
	_ = d.Process.Stop(20 * time.Second) // whether it had to be killed, the stage tells
	unmountBelow(d.Stage, d.dir)
	// The cgroups are empty; some hierarchies may have none.
	dirs, _ := filepath.Glob("/sys/fs/cgroup/*/" + d.parent)
	for _, dir := range append(dirs, "/sys/fs/cgroup/"+d.parent) {
		_ = os.Remove(dir)
	}
}

// unmountBelow unmounts what a container engine left behind.
func unmountBelow(s *Stage, dir string) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		s.Logf("%v", err)
	}
	for _, line := range slices.Backward(strings.Split(string(mounts), "\n")) { // the innermost first
		if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[1], dir+"/") {
			_ = syscall.Unmount(fields[1], syscall.MNT_DETACH)
		}
	}
}
