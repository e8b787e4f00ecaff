// Package container owns which container a process runs in, as the kernel's
// cgroups tell it, and what keeps a process from passing for another container's.
// It asks no daemon, and knows no selectors.
package container

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// Container is what a process's cgroups say of its container. Whoever may make
// cgroups chose the names: a user can in a subtree that was delegated to it, and
// a container below itself. [Belongs] tells the imitation.
type Container struct {
	// ID is 64 lower-case hex digits.
	ID string
	// PodUID is the Kubernetes pod's: a UUID with dashes, or 32 hex digits of a
	// pod from a file; "": it is in no pod.
	PodUID string
	// Runtime is what the cgroup's name says before the ID, such as docker,
	// libpod (Podman), crio or cri-containerd; "" where it says nothing.
	Runtime string
	// Path is that of the cgroup up to and with the component that has the ID.
	Path string
}

// Find returns the container that /proc/PID/cgroup names (cgroups(7)), of cgroup
// v1, v2 and both at once, with paths as seen from any cgroup namespace. false and
// nil: none. Of containers in containers it is the innermost. The error says that
// the lines name more than one: nothing tells which is true.
func Find(cgroup []byte) (Container, bool, error) { return find(cgroup, known) }

// find has one line's path looked at by look.
func find(cgroup []byte, look func(path string) (Container, bool)) (Container, bool, error) {
	var found Container
	var ok bool
	for line := range lines(cgroup) {
		if line.err != nil {
			return Container{}, false, line.err
		}
		c, is := look(line.path)
		switch {
		case !is:
		case !ok, found.PodUID == "" && c.PodUID != "":
			// A pod's line counts more than one without: in a node that is itself a
			// container, some hierarchies name the node's container alone.
			found, ok = c, true
		case found.PodUID != "" && c.PodUID == "":
		case c.ID != found.ID || c.PodUID != found.PodUID:
			return Container{}, false, fmt.Errorf("the process is in cgroups of two containers, %s and %s", found.Path, c.Path)
		}
	}
	return found, ok, nil
}

// cgroupLine is one of /proc/PID/cgroup.
type cgroupLine struct {
	// hierarchy is the controllers or the name of a v1 hierarchy; "" is v2's.
	hierarchy string
	path      string
	err       error
}

// lines yields the lines; after one with an error there is none.
func lines(cgroup []byte) func(yield func(cgroupLine) bool) {
	return func(yield func(cgroupLine) bool) {
		for raw := range bytes.Lines(cgroup) {
			// ID:controllers:path; controllers may be a name with a colon
			// in no known system, a path may.
			fields := strings.SplitN(strings.TrimSuffix(string(raw), "\n"), ":", 3)
			if len(fields) != 3 || !strings.HasPrefix(fields[2], "/") {
				yield(cgroupLine{err: fmt.Errorf("/proc/PID/cgroup: %.80q is not ID:controllers:/path", raw)})
				return
			}
			if !yield(cgroupLine{hierarchy: fields[1], path: fields[2]}) {
				return
			}
		}
	}
}

// known looks for the layouts that runtimes make: a component that is the ID, or
// ends with it after - or :, with or without .scope.
func known(path string) (Container, bool) {
	for end := len(path); end > 0; {
		start := strings.LastIndexByte(path[:end], '/') + 1
		if id, runtime, ok := parseComponent(path[start:end]); ok {
			return Container{ID: id, Runtime: runtime, PodUID: podUID(path[:start] + runtime), Path: path[:end]}.tidy(), true
		}
		end = start - 1
	}
	return Container{}, false
}

// Around returns the container whose cgroup c's is below, the next one out: a
// container that may make cgroups chooses the names of those below its own.
func (c Container) Around() (Container, bool) {
	end := strings.LastIndexByte(c.Path, '/')
	if end < 0 {
		return Container{}, false
	}
	return known(c.Path[:end])
}

// tidy leaves the last part of what stands before the ID.
func (c Container) tidy() Container {
	c.Runtime = c.Runtime[strings.LastIndexByte(c.Runtime, ':')+1:]
	return c
}

const idLength = 64

// parseComponent returns the ID in a component of a path, and what stands before.
func parseComponent(name string) (id, before string, ok bool) {
	name = strings.TrimSuffix(name, ".scope")
	if len(name) < idLength {
		return "", "", false
	}
	before, id = name[:len(name)-idLength], name[len(name)-idLength:]
	if !isHex(id) {
		return "", "", false
	}
	if before == "" {
		return id, "", true
	}
	last := len(before) - 1
	if before[last] != '-' && before[last] != ':' {
		return "", "", false
	}
	before = before[:last]
	// conmon watches a container from outside.
	return id, before, before != "" && !strings.HasSuffix(before, "conmon")
}

// podUID returns the UID that the innermost pod in a path names: pod<UID>, as
// cgroupfs spells it, or …-pod<UID>.slice with _ for -, as systemd does.
func podUID(path string) string {
	for end := len(path); end > 0; {
		start := strings.LastIndex(path[:end], "pod")
		if start < 0 {
			return ""
		}
		end = start
		if start > 0 && path[start-1] != '/' && path[start-1] != '-' {
			continue
		}
		rest := path[start+len("pod"):]
		if stop := strings.IndexAny(rest, "/.:"); stop >= 0 {
			rest = rest[:stop]
		}
		if uid := strings.ReplaceAll(rest, "_", "-"); isUID(uid) {
			return uid
		}
	}
	return ""
}

// isUID reports whether s is a UUID, or the hash that pods from files have.
func isUID(s string) bool {
	if len(s) == 32 {
		return isHex(s)
	}
	if len(s) != 36 {
		return false
	}
	for i, c := range []byte(s) {
		if dash := i == 8 || i == 13 || i == 18 || i == 23; dash != (c == '-') || !dash && !isHex(s[i:i+1]) {
			return false
		}
	}
	return true
}

func isHex(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// ErrNoPath says that a container's first process is not in a cgroup with its name.
var ErrNoPath = errors.New("its first process is in no cgroup of that name")
