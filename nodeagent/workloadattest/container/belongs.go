package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// maxCgroup bounds what is read of /proc/PID/cgroup: some twenty lines, each with
// a path of at most 4096 bytes.
const maxCgroup = 128 << 10

// Process is what [Belongs] reads: a [workloadattest.Process].
type Process interface {
	PID() int
	// ReadFile reads a file of /proc/PID of at most limit bytes.
	ReadFile(name string, limit int) ([]byte, error)
	// Readlink reads a link of /proc/PID, such as ns/pid.
	Readlink(name string) (string, error)
	// Check fails unless the process lives.
	Check() error
}

// Belongs returns nil if p runs in the container c, whose first process its
// runtime says is first. In each hierarchy in which the name of first's cgroup has
// c's ID, p must be in that very cgroup or below, and the two share the mount
// namespace, or a PID namespace that is not the agent's own, as the processes of
// `docker exec` and --pid=host do. So a cgroup that a user named like a container
// does not count: it is not the one that the runtime put first into.
//
// Where the agent may not read namespaces (it has no CAP_SYS_PTRACE), the cgroups
// alone decide.
func Belongs(c Container, p, first Process) error {
	if err := below(c, p, first); err != nil {
		return fmt.Errorf("pid %d is in a cgroup named like container %.12s, but not in that container: %w", p.PID(), c.ID, err)
	}
	if err := shareNamespace(p, first); err != nil {
		return fmt.Errorf("pid %d is in the cgroup of container %.12s, but not in that container: %w", p.PID(), c.ID, err)
	}
	// All that was read of first was the container's.
	return first.Check()
}

func below(c Container, p, first Process) error {
	roots, err := cgroupsOf(first)
	if err != nil {
		return err
	}
	own, err := cgroupsOf(p)
	if err != nil {
		return err
	}
	any := false
	for hierarchy, path := range roots {
		root, ok := upToID(path, c.ID)
		if !ok {
			continue
		}
		any = true
		if at, ok := own[hierarchy]; !ok || at != root && !strings.HasPrefix(at, root+"/") {
			return fmt.Errorf("it is in %s, the container is %s", at, root)
		}
	}
	if !any {
		return ErrNoPath
	}
	return nil
}

// upToID returns path up to the innermost component that has the ID.
func upToID(path, id string) (string, bool) {
	at := strings.LastIndex(path, id)
	if at < 0 {
		return "", false
	}
	if end := strings.IndexByte(path[at:], '/'); end >= 0 {
		path = path[:at+end]
	}
	return path, true
}

// cgroupsOf returns the paths by hierarchy.
func cgroupsOf(p Process) (map[string]string, error) {
	data, err := p.ReadFile("cgroup", maxCgroup)
	if err != nil {
		return nil, err
	}
	paths := make(map[string]string)
	for line := range lines(data) {
		if line.err != nil {
			return nil, line.err
		}
		paths[line.hierarchy] = line.path
	}
	return paths, nil
}

func shareNamespace(p, first Process) error {
	mnt, err := sameLink("ns/mnt", p, first)
	if mnt || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	pid, pidErr := sameLink("ns/pid", p, first)
	if err := errors.Join(err, pidErr); err != nil {
		return err
	}
	if pid {
		agents, err := os.Readlink("/proc/self/ns/pid")
		if err != nil {
			return err
		}
		theirs, err := p.Readlink("ns/pid")
		if err != nil {
			return err
		}
		if agents != theirs {
			return nil
		}
	}
	return errors.New("they share neither a mount namespace nor a PID namespace of the container's own")
}

func sameLink(name string, a, b Process) (bool, error) {
	first, err := a.Readlink(name)
	if err != nil {
		return false, err
	}
	second, err := b.Readlink(name)
	return first == second, err
}
