package kube

import (
	"os"
	"path/filepath"
)

// unified is where cgroup v2 is mounted.
func unified() string {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.procs"); err == nil {
		return "/sys/fs/cgroup"
	}
	return "/sys/fs/cgroup/unified"
}

// cgroupDirs are the cgroups of that name in all hierarchies.
func cgroupDirs(name string) []string {
	var found []string
	for _, pattern := range []string{"/sys/fs/cgroup/" + name, "/sys/fs/cgroup/*/" + name} {
		dirs, err := filepath.Glob(pattern)
		if err == nil {
			found = append(found, dirs...)
		}
	}
	return found
}
