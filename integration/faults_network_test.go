package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/integration/harness"
	"github.com/lanyard-mtls/lanyard/integration/traffic"
)

// cable is two network namespaces with nothing but a virtual cable between them.
type cable struct{ near, far string }

// Where the ends of a cable are. Nothing outside of its namespaces can reach them.
const nearIP, farIP = "10.79.0.1", "10.79.0.2"

// newCable lays one, or skips the test where it can't.
func newCable(t *testing.T) cable {
	t.Helper()
	ip, err := exec.LookPath("ip")
	if err != nil {
		t.Skip("no ip to make network namespaces with (Debian: iproute2)")
	}
	name := fmt.Sprintf("ly%d", os.Getpid())
	c := cable{name + "a", name + "b"}
	for i, step := range [][]string{
		{"netns", "add", c.near},
		{"netns", "add", c.far},
		{"-n", c.near, "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", c.far},
		{"-n", c.near, "addr", "add", nearIP + "/30", "dev", "v0"},
		{"-n", c.far, "addr", "add", farIP + "/30", "dev", "v1"},
		{"-n", c.near, "link", "set", "v0", "up"},
		{"-n", c.far, "link", "set", "v1", "up"},
	} {
		if i < 2 {
			t.Cleanup(func() { _ = exec.Command(ip, "netns", "del", step[2]).Run() }) // not there if step failed
		}
		if out, err := exec.Command(ip, step...).CombinedOutput(); err != nil {
			t.Skipf("no network namespaces here: ip %s: %v: %s", strings.Join(step, " "), err, out)
		}
	}
	return c
}

// cut makes each end send to a machine that is not there, as if the cable were cut somewhere on the way: its own link is
// up, and packets are lost.
func (c cable) cut(t *testing.T) {
	t.Helper()
	run(t, "ip", "-n", c.near, "neigh", "replace", farIP, "lladdr", "02:00:00:00:00:01", "nud", "permanent", "dev", "v0")
	run(t, "ip", "-n", c.far, "neigh", "replace", nearIP, "lladdr", "02:00:00:00:00:01", "nud", "permanent", "dev", "v1")
}

// mend undoes cut.
func (c cable) mend(t *testing.T) {
	t.Helper()
	run(t, "ip", "-n", c.near, "neigh", "del", farIP, "dev", "v0")
	run(t, "ip", "-n", c.far, "neigh", "del", nearIP, "dev", "v1")
}

// sidecarIn starts one in a namespace, with its status on a UNIX socket, as these reach from one namespace to the other.
func (s svids) sidecarIn(namespace, name, mode, listen, target string, args ...string) *harness.Process {
	s.Helper()
	status := s.Path(name, "status.sock")
	command := []string{"--net=/run/netns/" + namespace, s.SidecarBinary(), mode, "--listen", listen, "--target", target, "--status", "unix:" + status}
	p := s.Start(name, "nsenter", append(append(command, s.args(name)...), args...)...)
	s.Until(fetchLimit, name, func(ctx context.Context) error {
		_, err := harness.Get(ctx, harness.Unix(status), "http://status/_status")
		return err
	})
	return p
}

// TestFaultsPeerVanishes cuts the cable between two sidecars. No FIN and no reset tells either of them that the other is
// gone: only silence, and bytes that nobody acknowledges.
func TestFaultsPeerVanishes(t *testing.T) {
	t.Parallel()
	c, s := newCable(t), newSVIDs(t)
	const talks = 60
	backend, front := s.Path("backend", "s"), "unix:"+s.Path("front", "s")
	tr, err := traffic.New(traffic.Options{Listen: "unix:" + backend, Every: 2 * time.Second, Limit: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.Finish)
	quick := []string{"--tcp-keep-alive", "1s", "--tcp-user-timeout", "2s"}
	server := s.sidecarIn(c.near, "server", "server", nearIP+":8443", tr.Target(), append(quick, "--allow-uri", s.id("client"))...)
	client := s.sidecarIn(c.far, "client", "client", front, nearIP+":8443", append(quick, "--verify-uri", s.id("server"))...)
	open, err := tr.Open(t.Context(), front, talks)
	if err != nil {
		t.Fatal(err)
	}
	files := map[*harness.Process]int{server: 0, client: 0}
	for p := range files {
		files[p] = filesOf(t, p) - 2*talks
	}
	c.cut(t)
	begun := time.Now()
	for _, talk := range open {
		talk.Excuse("the cable was cut")
		<-talk.Ended()
	}
	t.Logf("the last client was told after %v", time.Since(begun).Round(time.Millisecond))
	for _, p := range []*harness.Process{client, server} {
		s.Until(fetchLimit, p.Name+" to give up its peers", func(context.Context) error { return silentPeers(p, talks) })
		s.Until(fetchLimit, p.Name+" to close their sockets", func(context.Context) error {
			if now := filesOf(t, p); now > files[p] {
				return fmt.Errorf("%d descriptors, %d without the conversations", now, files[p])
			}
			return nil
		})
	}
	c.mend(t)
	again, err := tr.Open(t.Context(), front, 10)
	if err != nil {
		t.Fatal(err)
	}
	tr.Finish()
	report := tr.Check()
	t.Log(report)
	if err := errors.Join(report.Faults...); err != nil || report.Whole != len(again) {
		t.Errorf("%d whole, want %d, of after the cut: %v", report.Whole, len(again), err)
	}
}

// silentPeers tells whether so many connections ended because the other side was silent.
func silentPeers(p *harness.Process, want int) error {
	n := 0
	for _, record := range p.Logged("connection") {
		if record["cause"] == "timed out" {
			n++
		}
	}
	return atLeast(n, want)
}

func filesOf(t *testing.T, p *harness.Process) int {
	t.Helper()
	h, err := p.Held()
	if err != nil {
		t.Fatal(err)
	}
	return h.Files
}
