package k8s

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	cgroups "github.com/lanyard-mtls/lanyard/nodeagent/workloadattest/container"
)

var (
	wantPod = []string{
		"k8s:node-name:node1", "k8s:ns:prod",
		"k8s:pod-image-count:1", "k8s:pod-image:localhost/web:1",
		"k8s:pod-image:sha256:594cc4f4e525438ca291e7dd9dd9639c85bcf2c74f7f960256c78dc5bffe8efd",
		"k8s:pod-init-image-count:1", "k8s:pod-init-image:localhost/pause:1",
		"k8s:pod-init-image:sha256:17330aab844604029bdba33d817767302ccbfc612f62200dd924f7b9997f8453",
		"k8s:pod-label:app:web", "k8s:pod-name:web-1",
		"k8s:pod-owner-uid:ReplicaSet:11111111-2222-3333-4444-555555555555", "k8s:pod-owner:ReplicaSet:web-1",
		"k8s:pod-uid:" + podUID, "k8s:sa:web",
	}
	wantContainer = append([]string{
		"k8s:container-image:localhost/web:1",
		"k8s:container-image:sha256:594cc4f4e525438ca291e7dd9dd9639c85bcf2c74f7f960256c78dc5bffe8efd", "k8s:container-name:web",
	}, wantPod...)
	wantInit = append([]string{
		"k8s:container-image:localhost/pause:1",
		"k8s:container-image:sha256:17330aab844604029bdba33d817767302ccbfc612f62200dd924f7b9997f8453", "k8s:container-name:init",
	}, wantPod...)
)

func TestSelectors(t *testing.T) {
	k := newKubelet(t)
	noContainer := k.cfg
	noContainer.DisableContainerSelectors = true
	for name, test := range map[string]struct {
		cfg     Config
		uid, id string
		want    []string
	}{
		"container":              {k.cfg, podUID, containerID, wantContainer},
		"init container":         {k.cfg, podUID, initID, wantInit},
		"UID without dashes":     {k.cfg, strings.ReplaceAll(podUID, "-", ""), containerID, wantContainer},
		"no UID, as of CRI-O":    {k.cfg, "", containerID, wantContainer},
		"of the pod alone":       {noContainer, podUID, containerID, wantPod},
		"of the pod, starting":   {noContainer, podUID, strings.Repeat("e", 64), wantPod},
		"without any, ephemeral": {k.cfg, podUID, strings.Repeat("c", 64), nil},
	} {
		t.Run(name, func(t *testing.T) {
			k.set(func() {
				k.list = strings.Replace(recorded(t), `"containerStatuses":`, `"ephemeralContainerStatuses": [{"name": "debug", "containerID": "containerd://`+strings.Repeat("c", 64)+`"}], "containerStatuses":`, 1)
			})
			got, err := attest(t.Context(), newPlugin(t, test.cfg), test.uid, test.id)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("selectors (-want +got):\n%s", diff)
			}
		})
	}
}

// The container must be in the pod that the cgroup names.
func TestContainerOfAnotherPodIsRefused(t *testing.T) {
	k := newKubelet(t)
	_, err := attest(t.Context(), newPlugin(t, k.cfg), "00000000-0000-0000-0000-000000000000", containerID)
	if err == nil || !strings.Contains(err.Error(), "its cgroup says") {
		t.Errorf("error %v", err)
	}
	twice := strings.Replace(recorded(t), `"items": [`, `"items": [{"metadata":{"uid":"other"},"status":{"containerStatuses":[{"containerID":"containerd://`+containerID+`"}]}},`, 1)
	k.set(func() { k.list = twice })
	_, err = attest(t.Context(), newPlugin(t, k.cfg), "", containerID)
	if err == nil || !strings.Contains(err.Error(), "two pods found with same container Id") {
		t.Errorf("error %v", err)
	}
}

// A container that may make cgroups, as containerd's cgroup_writable lets it, can
// name one below its own like another pod's container, and go there.
func TestCgroupMadeInAContainerIsRefused(t *testing.T) {
	const attacker, attackersPod = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc", "22222222-3333-4444-5555-666666666666"
	victim := "/kubelet/kubepods/pod" + podUID + "/" + containerID
	for name, test := range map[string]struct {
		listed, path string
		refused      bool
	}{
		"in a pod's":                {"containerd://" + attacker, "/kubepods/pod" + attackersPod + "/" + attacker + victim, true},
		"two below":                 {"containerd://" + attacker, "/kubepods/pod" + attackersPod + "/" + attacker + "/" + strings.Repeat("e", 64) + victim, true},
		"in one that starts":        {"", "/kubepods/pod" + attackersPod + "/" + attacker + victim, true},
		"of CRI-O without UID":      {"cri-o://" + attacker, "/machine.slice/crio-" + attacker + ".scope" + victim, true},
		"a node that's a container": {"", "/docker/" + strings.Repeat("d", 64) + victim, false},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKubelet(t)
			p := newPlugin(t, k.cfg)
			// It was listed before the attacker's pod was there.
			if _, err := attest(t.Context(), p, podUID, containerID); err != nil {
				t.Fatal(err)
			}
			k.set(func() {
				k.list = strings.Replace(k.list, `"items": [`, `"items": [{"metadata":{"uid":"`+attackersPod+`"},"status":{"containerStatuses":[{"containerID":"`+test.listed+`"}]}},`, 1)
			})
			c, ok, err := cgroups.Find([]byte("0::" + test.path + "\n"))
			if !ok || err != nil || c.ID != containerID || c.PodUID != podUID {
				t.Fatalf("container %v: %v, %v", c, ok, err)
			}
			_, err = p.find(t.Context(), c)
			if refused := err != nil && strings.Contains(err.Error(), "was made in container"); refused != test.refused || !refused && err != nil {
				t.Errorf("error %v", err)
			}
		})
	}
}

// A container that is listed late is found as soon as it is; one that never is
// isn't looked for any longer than configured.
func TestContainerThatIsNotListedYet(t *testing.T) {
	k := newKubelet(t)
	k.waiting, k.answer = make(chan struct{}), make(chan struct{})
	k.list = `{"items":null}`
	p := newPlugin(t, k.cfg)
	done := make(chan error, 1)
	go func() {
		_, err := attest(t.Context(), p, podUID, containerID)
		done <- err
	}()
	<-k.waiting
	k.answer <- struct{}{}
	<-k.waiting
	k.set(func() { k.list = recorded(t) })
	k.answer <- struct{}{}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	go func() {
		_, err := attest(t.Context(), p, podUID, strings.Repeat("d", 64))
		done <- err
	}()
	for range k.cfg.MaxPollAttempts {
		<-k.waiting
		k.answer <- struct{}{}
	}
	if err := <-done; err == nil || !strings.Contains(err.Error(), "no selectors found after max poll attempts") {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, err := attest(ctx, p, podUID, strings.Repeat("d", 64))
		done <- err
	}()
	<-k.waiting
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	k.answer <- struct{}{}
}

// While the kubelet is away, a container that it told of before is known still.
func TestKubeletThatIsAway(t *testing.T) {
	k := newKubelet(t)
	p := newPlugin(t, k.cfg)
	if _, err := attest(t.Context(), p, podUID, containerID); err != nil {
		t.Fatal(err)
	}
	age := func(by time.Duration) {
		p.list.mu.Lock()
		defer p.list.mu.Unlock()
		p.list.since = p.list.since.Add(-by)
	}
	k.set(func() { k.code = http.StatusInternalServerError })
	age(fresh)
	if got, err := attest(t.Context(), p, podUID, containerID); err != nil || len(got) != len(wantContainer) {
		t.Errorf("%d selectors, %v", len(got), err)
	}
	age(stale)
	if _, err := attest(t.Context(), p, podUID, containerID); err == nil || !strings.Contains(err.Error(), "500") {
		t.Errorf("error %v", err)
	}
	k.set(func() { k.code = http.StatusOK })
	if _, err := attest(t.Context(), p, podUID, containerID); err != nil {
		t.Error(err)
	}
}

// Labels change while a container runs: they are not older than [fresh].
func TestLabelsAreSeenSoon(t *testing.T) {
	k := newKubelet(t)
	p := newPlugin(t, k.cfg)
	if _, err := attest(t.Context(), p, podUID, containerID); err != nil {
		t.Fatal(err)
	}
	k.set(func() { k.list = strings.Replace(k.list, `"app": "web"`, `"app": "other"`, 1) })
	p.list.mu.Lock()
	p.list.since = p.list.since.Add(-fresh)
	p.list.mu.Unlock()
	got, err := attest(t.Context(), p, podUID, containerID)
	if err != nil || !strings.Contains(strings.Join(got, " "), "k8s:pod-label:app:other") {
		t.Errorf("%q, %v", got, err)
	}
}

// Cgroups that a user may have made name nobody's container. Which directories
// there are is the test's to say; [TestAttestReadsTheProcess] asks the kernel.
func TestCgroupsMadeByUsersAreRefused(t *testing.T) {
	const path = "/kubepods/besteffort/pod" + podUID + "/" + containerID
	notSeen := func(string) (uint32, error) { return 0, errNotSeen }
	by := func(uid uint32) func(string) (uint32, error) { return func(string) (uint32, error) { return uid, nil } }
	for name, test := range map[string]struct {
		path  string
		owner func(string) (uint32, error)
		ok    bool
	}{
		"root's":                   {path, by(0), true},
		"the agent's user":         {path, by(uint32(os.Geteuid())), true},
		"a user's":                 {path, by(uint32(os.Geteuid()) + 12345), false},
		"of the agent's namespace": {"/../../pod" + podUID + "/" + containerID, notSeen, true},
		"a user's, from there":     {"/../../../user.slice/user-1000.slice/user@1000.service" + path, notSeen, false},
	} {
		p := newPlugin(t, Config{})
		p.owner = test.owner
		if err := p.made(cgroups.Container{ID: containerID, PodUID: podUID, Path: test.path}); (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
