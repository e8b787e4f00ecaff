// Package container owns which container a process runs in, as the kernel's
// cgroups tell it, and what keeps a process from passing for another container's.
// It asks no daemon, and knows no selectors.
package container

// Container is what a process's cgroups say of its container. The process's user
// may have chosen the names: see [Belongs].
type Container struct {
	// ID is 64 lower-case hex digits.
	ID string
	// PodUID is the Kubernetes pod's, with dashes; "": it is in no pod.
	PodUID string
	// Path is the cgroup's path up to and with the component that has the ID.
	Path string
}

// Process is what [Belongs] reads: a [workloadattest.Process].
type Process interface {
	PID() int
	// ReadFile reads a file of /proc/PID of at most max bytes.
	ReadFile(name string, max int) ([]byte, error)
	// Readlink reads a link of /proc/PID, such as ns/pid.
	Readlink(name string) (string, error)
	// Check fails unless the process lives.
	Check() error
}

// Find returns the container that /proc/PID/cgroup names, of cgroup v1, v2 and
// both at once. false and nil: none. An error: more than one.
func Find(cgroup []byte) (Container, bool, error) {
	return Container{}, false, nil
}

// Belongs returns nil if p runs in the container c, whose first process is
// first: p's cgroup is first's or below it, and they share a namespace. A cgroup
// with a container's name that someone else made has no such process.
func Belongs(c Container, p, first Process) error {
	return nil
}
