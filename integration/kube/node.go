package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/lanyard-mtls/lanyard/integration/cgroup"
	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// Node is a real kubelet with a real containerd, in a mount namespace of their own. Its pods are on the host's network.
type Node struct {
	Cluster *Cluster
	Name    string
	// ReadOnlyPort and SecurePort are the kubelet's, on 127.0.0.1; CAFile is of its certificate.
	ReadOnlyPort, SecurePort int
	CAFile                   string

	stage      *harness.Stage
	containerd *harness.Process
	socket     string // containerd's
	execs      int
}

// NodeSkipped is why a test that needs a [Node] is skipped; "": it is not. integration/tools/kube.sh builds a kubelet,
// deps.sh installs the rest.
func NodeSkipped(root string) string {
	if os.Geteuid() != 0 {
		return "kubelet: needs root"
	}
	if Binary(root) == "" {
		return Skipped
	}
	for _, file := range []string{kubelet(root), "/usr/bin/containerd", "/usr/sbin/runc", "/bin/busybox"} {
		if _, err := os.Stat(file); err != nil {
			return fmt.Sprintf("kubelet: %v: integration/tools/kube.sh and deps.sh kubelet bring it", err)
		}
	}
	for _, dir := range cgroupDirs("kubepods") {
		return fmt.Sprintf("kubelet: %s exists: another kubelet runs here", dir)
	}
	return ""
}

func kubelet(root string) string { return filepath.Join(filepath.Dir(Binary(root)), "kubelet") }

// What the two must not leave behind, or change on the machine, is theirs alone: logs, containerd's sockets, and the
// kernel's settings that a kubelet writes.
const nodeScript = `set -eu
echo 0 >"$CGROUP/cgroup.procs"
exec unshare --mount sh -euc '
mount --make-rprivate /
mount -t tmpfs none /var/log
mkdir -p /run/containerd
mount -t tmpfs none /run/containerd
for name in kernel/panic kernel/panic_on_oops vm/overcommit_memory vm/panic_on_oom kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
	mkdir -p "$DIR/sys/${name%/*}"
	cat "/proc/sys/$name" >"$DIR/sys/$name"
	mount --bind "$DIR/sys/$name" "/proc/sys/$name"
done
exec /usr/bin/containerd --config "$DIR/containerd.toml"
'`

// StartNode starts a node that ends with the test, and waits until the API server has it. Skip the test before, if
// [NodeSkipped] says why.
func StartNode(c *Cluster, root, name string) *Node {
	c.t.Helper()
	s := harness.NewStage(c.t, "")
	n := &Node{Cluster: c, Name: name, stage: s, socket: s.Path("c.sock"), CAFile: s.Path("kubelet", "pki", "kubelet.crt")}
	cgroup := filepath.Join(unified(), "lanyard-"+filepath.Base(s.Dir))
	if err := os.Mkdir(cgroup, 0o755); err != nil {
		c.t.Fatalf("%v", err)
	}
	c.t.Cleanup(func() { n.clean(cgroup) })
	n.startContainerd(cgroup)
	n.importImage("localhost/pause:1", "trap exit TERM; sleep 1000000 & wait")
	n.importImage("localhost/web:1", "trap exit TERM; while :; do sleep 1000 & wait; done")
	n.startKubelet(kubelet(root))
	return n
}

func (n *Node) startContainerd(cgroup string) {
	s := n.stage
	config := fmt.Sprintf(`version = 2
root = %q
state = %q
[grpc]
  address = %q
[plugins."io.containerd.internal.v1.opt"]
  path = %q
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = %q
    conf_dir = %q
`, s.Path("root"), s.Path("state"), n.socket, s.Path("opt"), s.Path("none"), s.Path("none"))
	s.WriteFile("containerd.toml", config)
	cmd := exec.Command("sh", "-c", nodeScript)
	cmd.Env = append(os.Environ(), "CGROUP="+cgroup, "DIR="+s.Dir)
	n.containerd = s.StartCmd("containerd", cmd)
	n.until("containerd to answer", func(context.Context) error {
		out, err := n.command("ctr", "-a", n.socket, "version").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// command is a command in the node's mount namespace.
func (n *Node) command(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"-t", strconv.Itoa(n.containerd.PID()), "-m", "--", name}, args...)...)
}

func (n *Node) until(what string, try func(context.Context) error) {
	n.Cluster.t.Helper()
	if err := harness.Until(n.Cluster.t.Context(), startLimit, what, try); err != nil {
		n.Cluster.t.Fatalf("%v\n%s", err, n.containerd.Log.Tail(20))
	}
}

func (n *Node) ctr(args ...string) string {
	n.Cluster.t.Helper()
	out, err := n.command("ctr", append([]string{"-a", n.socket, "-n", "k8s.io"}, args...)...).CombinedOutput()
	if err != nil {
		n.Cluster.t.Fatalf("ctr %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (n *Node) startKubelet(binary string) {
	n.ReadOnlyPort, n.SecurePort = n.port(), n.port()
	s := n.stage
	config, err := json.Marshal(object{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"address": "127.0.0.1", "port": n.SecurePort, "readOnlyPort": n.ReadOnlyPort, "healthzPort": 0,
		"containerRuntimeEndpoint": "unix://" + n.socket, "cgroupDriver": "cgroupfs", "failSwapOn": false,
		"authentication": object{"anonymous": object{"enabled": false}, "webhook": object{"enabled": true}},
		"authorization":  object{"mode": "Webhook"},
		"podLogsDir":     s.Path("logs"), "volumePluginDir": s.Path("plugins"), "makeIPTablesUtilChains": false,
		"enforceNodeAllocatable": []string{}, "localStorageCapacityIsolation": false,
		"evictionHard": object{"memory.available": "1Mi"}, "imageGCHighThresholdPercent": 100,
	})
	if err != nil {
		n.Cluster.t.Fatalf("%v", err)
	}
	cmd := n.command(binary, "--config", s.WriteFile("kubelet.json", string(config)),
		"--kubeconfig", n.Cluster.KubeConfig(s.Path("kubeconfig"), adminToken), "--root-dir", s.Path("kubelet"),
		"--cert-dir", filepath.Dir(n.CAFile), "--hostname-override", n.Name)
	p := s.StartCmd("kubelet", cmd)
	err = harness.Until(n.Cluster.t.Context(), startLimit, "the kubelet to register and listen", func(ctx context.Context) error {
		if !p.Running() {
			return p.Wait()
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/pods", n.ReadOnlyPort), nil)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			return err
		}
		response.Body.Close()
		return n.Cluster.ask(ctx, http.MethodGet, "/api/v1/nodes/"+n.Name, nil, nil)
	})
	if err != nil {
		n.Cluster.t.Fatalf("%v\n%s", err, p.Log.Tail(30))
	}
}

func (n *Node) port() int {
	_, port, _ := cutPort(n.stage.Addr())
	number, err := strconv.Atoi(port)
	if err != nil {
		n.Cluster.t.Fatalf("%v", err)
	}
	return number
}

// clean ends all that runs, and removes the cgroups.
func (n *Node) clean(own string) {
	for _, p := range []string{own, filepath.Join(unified(), "kubepods")} {
		// Whatever is below is killed, shims and containers too.
		_ = os.WriteFile(filepath.Join(p, "cgroup.kill"), []byte("1"), 0)
	}
	for _, dir := range append(cgroupDirs("kubepods"), own) {
		end := time.Now().Add(10 * time.Second)
		for ; cgroup.Remove(dir) != nil && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			_ = os.WriteFile(filepath.Join(unified(), "kubepods", "cgroup.kill"), []byte("1"), 0)
		}
		if _, err := os.Stat(dir); err == nil {
			n.Cluster.t.Fatalf("cgroup %s stays", dir)
		}
	}
}
