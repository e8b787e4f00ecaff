package k8s

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

// inCgroup runs a process in a cgroup of that path, below one that is the test's.
// The directory named owned, if any, is given to a user.
func inCgroup(t *testing.T, path, owned string) *workloadattest.Process {
	t.Helper()
	mount := "/sys/fs/cgroup/unified"
	if _, err := os.Stat(filepath.Join(mount, "cgroup.procs")); err != nil {
		mount = "/sys/fs/cgroup"
	}
	root, err := os.MkdirTemp(mount, "lanyard-k8s-test-")
	if err != nil {
		t.Skipf("cgroups: %v", err)
	}
	dir := filepath.Join(root, path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Skipf("cgroups: %v", err)
	}
	if owned != "" {
		if err := os.Chown(filepath.Join(root, owned), 12345, 12345); err != nil {
			t.Skipf("cgroups: %v", err)
		}
	}
	t.Cleanup(func() {
		for at := dir; len(at) >= len(root); at = filepath.Dir(at) {
			// The process that was killed leaves it a moment later.
			for end := time.Now().Add(5 * time.Second); errors.Is(syscall.Rmdir(at), syscall.EBUSY) && time.Now().Before(end); time.Sleep(time.Millisecond) {
			}
		}
	})
	fd, err := syscall.Open(dir, syscall.O_DIRECTORY|syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
	if err := cmd.Start(); err != nil {
		t.Skipf("cgroups: %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	proc, err := workloadattest.Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { proc.Close() })
	return proc
}

func TestAttestReadsTheProcess(t *testing.T) {
	const pod = "kubepods/besteffort/pod" + podUID + "/"
	k := newKubelet(t)
	for name, test := range map[string]struct {
		path, owned string
		want        []string
		err         string
	}{
		"a pod":             {pod + containerID, "", wantContainer, ""},
		"systemd's cgroups": {"kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + strings.ReplaceAll(podUID, "-", "_") + ".slice/cri-containerd-" + containerID + ".scope", "", wantContainer, ""},
		"docker's":          {"docker/" + containerID, "", nil, ""},
		"in no container":   {"system.slice/web.service", "", nil, ""},
		"a user's":          {"user.slice/mine/" + pod + containerID, "user.slice/mine", nil, "was made by uid 12345"},
		"the container's":   {pod + containerID + "/below", pod + containerID, wantContainer, ""},
	} {
		t.Run(name, func(t *testing.T) {
			proc := inCgroup(t, test.path, test.owned)
			found, err := newPlugin(t, k.cfg).Attest(t.Context(), proc)
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Fatalf("error %v, want %q", err, test.err)
			}
			if diff := cmp.Diff(test.want, texts(found)); diff != "" {
				t.Errorf("selectors (-want +got):\n%s", diff)
			}
		})
	}
}
