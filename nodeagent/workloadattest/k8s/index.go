package k8s

import (
	"io"
	"strings"

	cgroups "github.com/lanyard-mtls/lanyard/nodeagent/workloadattest/container"
)

// place is one container of a pod.
type place struct {
	pod *pod
	// container is nil for an ephemeral one, which has no selectors.
	container *container
	// twice says that another pod has a container of that ID.
	twice bool
}

// index is one list of pods, found by what is known of a process. It is not
// changed once it is made.
type index struct {
	pods       map[string]*pod // by [plain] UID
	containers map[string]place
}

// plain is a UID without dashes: cgroups have them or not.
func plain(uid string) string { return strings.ReplaceAll(uid, "-", "") }

func newIndex(list io.Reader) (*index, error) {
	x := &index{pods: map[string]*pod{}, containers: map[string]place{}}
	err := parsePods(list, x.add)
	if err != nil {
		return nil, err
	}
	return x, nil
}

func (x *index) add(p *pod) {
	if p.Metadata.UID == "" {
		return // nothing in a cgroup could name it
	}
	x.pods[plain(p.Metadata.UID)] = p
	for _, all := range [][]container{p.Status.Containers, p.Status.InitContainers} {
		for i := range all {
			x.put(p, &all[i], all[i].id())
		}
	}
	for i := range p.Status.EphemeralContainers {
		x.put(p, nil, p.Status.EphemeralContainers[i].id())
	}
}

func (x *index) put(p *pod, c *container, id string) {
	if id == "" {
		return
	}
	was, twice := x.containers[id]
	x.containers[id] = place{pod: p, container: c, twice: twice && was.pod != p || was.twice}
}

// belowAPods reports whether c's cgroup is below one that looks like that of a
// pod's container, be it of this node or of one around it.
func belowAPods(c cgroups.Container) bool {
	for outer, ok := c.Around(); ok; outer, ok = outer.Around() {
		if outer.PodUID != "" || outer.Runtime == "crio" {
			return true
		}
	}
	return false
}

// around returns a container of the node's pods that c's cgroup is below. Its
// processes may have made that, with a name of their choice. A node that is
// itself a container is none of its own pods'.
func (x *index) around(c cgroups.Container) (cgroups.Container, bool) {
	for outer, ok := c.Around(); ok; outer, ok = outer.Around() {
		if _, listed := x.containers[outer.ID]; listed {
			return outer, true
		}
		if _, listed := x.pods[plain(outer.PodUID)]; listed {
			return outer, true
		}
	}
	return cgroups.Container{}, false
}
