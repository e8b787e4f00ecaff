package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// Subtree is a part of the cgroup v2 tree that belongs to a user, as systemd delegates one to each who logs in.
type Subtree struct {
	*Stage
	Dir string
	UID int
}

// NewSubtree makes one, below names as systemd gives them. The error says why there can be none here.
func NewSubtree(s *Stage, uid int) (*Subtree, error) {
	root := "/sys/fs/cgroup"
	if _, err := os.Stat(root + "/unified/cgroup.procs"); err == nil {
		root += "/unified"
	}
	top := fmt.Sprintf("%s/ly%d.slice", root, os.Getpid())
	t := &Subtree{Stage: s, UID: uid, Dir: fmt.Sprintf("%s/user-%d.slice/user@%d.service", top, uid, uid)}
	s.Cleanup(func() { removeTree(top) })
	if err := os.MkdirAll(t.Dir, 0o755); err != nil {
		return nil, err
	}
	for _, name := range []string{t.Dir, t.Dir + "/cgroup.procs"} {
		if err := os.Chown(name, uid, uid); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// Start starts a shell script as the user, in the subtree.
func (t *Subtree) Start(name, script string) *Process {
	t.Helper()
	dir, err := os.Open(t.Dir)
	if err != nil {
		t.Fatalf("%v", err)
	}
	defer dir.Close()
	cmd := exec.Command("sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		UseCgroupFD: true, CgroupFD: int(dir.Fd()),
		Credential: &syscall.Credential{Uid: uint32(t.UID), Gid: uint32(t.UID)},
	}
	return t.StartCmd(name, cmd)
}

// removeTree removes cgroups, the innermost first. Their processes have ended.
func removeTree(dir string) {
	below, _ := os.ReadDir(dir)
	for _, b := range below {
		if b.IsDir() {
			removeTree(filepath.Join(dir, b.Name()))
		}
	}
	_ = os.Remove(dir)
}
