package k8s

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// errNotSeen says that the agent doesn't see a cgroup's directory.
var errNotSeen = errors.New("cgroup not visible")

// cgroupMounts are where hierarchies are mounted that each container is in: v2
// alone, v2 beside v1, and two of v1.
var cgroupMounts = [...]string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/memory"}

// ownerOf returns who else than root owns a directory above the cgroup, from the
// mount on: whoever does makes what it likes below, and gives it any name. It
// returns a trusted user where nobody does.
func ownerOf(path string) (uint32, error) {
	if strings.Contains(path, "/..") {
		return 0, errNotSeen
	}
	for _, mount := range cgroupMounts {
		uid, err := ownerBelow(mount, path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return uid, err
	}
	return 0, errNotSeen
}

func ownerBelow(mount, path string) (uint32, error) {
	full := filepath.Join(mount, path)
	if _, err := os.Lstat(full); err != nil {
		return 0, err
	}
	for dir := filepath.Dir(full); len(dir) >= len(mount); dir = filepath.Dir(dir) {
		var st unix.Stat_t
		if err := unix.Lstat(dir, &st); err != nil {
			return 0, fmt.Errorf("cgroup %s: %w", dir, err)
		}
		if !trusted(st.Uid) {
			return st.Uid, nil
		}
	}
	return 0, nil
}

func trusted(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() }
