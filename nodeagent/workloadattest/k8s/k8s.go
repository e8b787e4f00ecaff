package k8s

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
	cgroups "github.com/lanyard-mtls/lanyard/nodeagent/workloadattest/container"
)

// Name is the type of the selectors.
const Name = "k8s"

// maxCgroup bounds what is read of /proc/PID/cgroup, in bytes.
const maxCgroup = 64 << 10

// Plugin is a [workloadattest.Plugin].
type Plugin struct {
	cfg        Config
	kubelet    *kubelet
	list       *list
	namespaces *namespaces // nil: their labels are not asked for
	owner      func(path string) (uid uint32, err error)
}

// New returns a plugin; it asks nothing before the first process.
func New(cfg Config) *Plugin {
	cfg = cfg.withDefaults()
	p := &Plugin{cfg: cfg, kubelet: &kubelet{cfg: cfg}, owner: ownerOf}
	p.list = newList(cfg.PollRetryInterval, p.kubelet.pods)
	if cfg.EnableNamespaceLabels {
		p.namespaces = newNamespaces(serviceAccountDir, cfg.ReloadInterval)
	}
	return p
}

// Name is the type of its selectors.
func (*Plugin) Name() string { return Name }

// Attest returns the selectors of a process that runs in a pod: SPIRE's, of the
// same form. A container that the kubelet doesn't list yet is waited for as long
// as ctx and the configuration allow.
func (p *Plugin) Attest(ctx context.Context, proc *workloadattest.Process) ([]registration.Selector, error) {
	data, err := proc.ReadFile("cgroup", maxCgroup)
	if err != nil {
		return nil, err
	}
	c, ok, err := cgroups.Find(data)
	if err != nil || !ok {
		return nil, err
	}
	// Only CRI-O beside KubeEdge makes cgroups without the pod's UID.
	if c.PodUID == "" && c.Runtime != "crio" {
		return nil, nil
	}
	if err := p.made(c); err != nil {
		return nil, err
	}
	if err := proc.Check(); err != nil { // or the cgroup was another process's
		return nil, err
	}
	at, err := p.find(ctx, c)
	if err != nil {
		return nil, err
	}
	return p.describe(ctx, at)
}

// describe makes the selectors of a container.
func (p *Plugin) describe(ctx context.Context, at place) ([]registration.Selector, error) {
	if at.pod == nil {
		return nil, nil
	}
	values := podSelectors(at.pod)
	if at.container != nil && !p.cfg.DisableContainerSelectors {
		values = append(values, containerSelectors(at.container)...)
	}
	if p.namespaces == nil {
		return selectors(values), nil
	}
	labels, err := p.namespaces.labels(ctx, at.pod.Metadata.Namespace)
	if err != nil {
		return selectors(values), fmt.Errorf("unable to get namespace labels for %q: %w", at.pod.Metadata.Namespace, err)
	}
	return selectors(append(values, labelSelectors(labels)...)), nil
}

// find finds the container in what the kubelet told, or tells in time.
func (p *Plugin) find(ctx context.Context, c cgroups.Container) (place, error) {
	known, since := p.list.known()
	at, found, err := p.lookUp(known, c)
	if belowAPods(c) {
		found, since = false, time.Now() // whose must be known as of now
	}
	if found && (err != nil || time.Since(since) < fresh) {
		return at, err
	}
	var lastErr error
	for attempt := 1; attempt <= p.cfg.MaxPollAttempts; attempt++ {
		next, began, err := p.list.newer(ctx, since)
		if ctx.Err() != nil {
			break
		}
		since, lastErr = began, err
		if errors.Is(err, errClosed) {
			break
		}
		if lastErr != nil && found && p.age() < stale {
			p.cfg.Log.Warn("kubelet does not answer: going by what it said before", "reason", lastErr)
			return at, nil
		}
		if again, ok, err := p.lookUp(next, c); ok || err != nil {
			return again, err
		}
	}
	switch {
	case lastErr != nil:
		return place{}, lastErr
	case ctx.Err() != nil:
		return place{}, fmt.Errorf("the kubelet does not list container %.12s of pod %s yet: %w", c.ID, c.PodUID, ctx.Err())
	}
	return place{}, fmt.Errorf("no selectors found after max poll attempts: the kubelet does not list container %.12s of pod %s", c.ID, c.PodUID)
}

// age is how long ago the last list was asked for.
func (p *Plugin) age() time.Duration {
	_, since := p.list.known()
	return time.Since(since)
}

// lookUp finds a container in one list. Its pod must be the one that the cgroup
// names.
func (p *Plugin) lookUp(x *index, c cgroups.Container) (at place, found bool, err error) {
	if x == nil {
		return place{}, false, nil
	}
	at, found = x.containers[c.ID]
	owner := x.pods[plain(c.PodUID)]
	outer, below := x.around(c)
	switch {
	case below:
		return place{}, true, fmt.Errorf("cgroup %s has a container's name, and was made in container %.12s of pod %s", c.Path, outer.ID, outer.PodUID)
	case found && at.twice && c.PodUID == "":
		return place{}, true, fmt.Errorf("two pods found with same container Id %.12s", c.ID)
	case found && c.PodUID != "" && plain(at.pod.Metadata.UID) != plain(c.PodUID):
		return place{}, true, fmt.Errorf("container %.12s is in pod %s, its cgroup says %s", c.ID, at.pod.Metadata.UID, c.PodUID)
	case found && at.container == nil:
		p.cfg.Log.Debug("a process of an ephemeral container has no selectors", "pod", at.pod.Metadata.Name, "namespace", at.pod.Metadata.Namespace)
		return place{}, true, nil
	case found:
		return at, true, nil
	case owner != nil && p.cfg.DisableContainerSelectors:
		return place{pod: owner}, true, nil
	}
	return place{}, false, nil
}

// Close ends what waits for the kubelet.
func (p *Plugin) Close() error {
	p.list.close()
	p.kubelet.close()
	if p.namespaces != nil {
		p.namespaces.close()
	}
	return nil
}

// made returns an error where somebody else than root, or the agent's own user,
// could have made a cgroup with that name: below one of its own, a user makes any.
func (p *Plugin) made(c cgroups.Container) error {
	uid, err := p.owner(c.Path)
	switch {
	case errors.Is(err, errNotSeen):
		// From a cgroup namespace of the agent's own, only names are left.
		if strings.Contains(c.Path, "/user.slice/") || strings.Contains(c.Path, "/user@") {
			return fmt.Errorf("cgroup %s has a container's name, and is a user's", c.Path)
		}
		return nil
	case err != nil:
		return err
	case !trusted(uid):
		return fmt.Errorf("cgroup %s has a container's name, and was made by uid %d", c.Path, uid)
	}
	return nil
}
