package kube

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// RunSpec is a pod to run on a node.
type RunSpec struct {
	Namespace, Name, ServiceAccount string // the first and the last must be there
	Labels                          map[string]string
	// Mounts are directories of the machine, by where the container has them.
	Mounts map[string]string
	User   int
}

// Running is a pod that runs.
type Running struct {
	Pod
	ContainerID string
	node        *Node
}

// Run makes a pod of one container, web, and waits until that runs.
func (n *Node) Run(spec RunSpec) *Running {
	c := n.Cluster
	c.t.Helper()
	var volumes, mounts []object
	for at, from := range spec.Mounts {
		name := fmt.Sprintf("v%d", len(volumes))
		volumes = append(volumes, object{"name": name, "hostPath": object{"path": from}})
		mounts = append(mounts, object{"name": name, "mountPath": at})
	}
	var pod struct {
		Metadata struct{ UID string }
		Status   struct {
			Phase             string
			ContainerStatuses []struct{ ContainerID string }
		}
	}
	pods := "/api/v1/namespaces/" + spec.Namespace + "/pods"
	c.must(http.MethodPost, pods, object{
		"metadata": object{"name": spec.Name, "labels": spec.Labels, "ownerReferences": []object{
			{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "11111111-2222-3333-4444-555555555555"},
		}},
		"spec": object{
			"serviceAccountName": spec.ServiceAccount, "nodeName": n.Name, "hostNetwork": true, "automountServiceAccountToken": false,
			"terminationGracePeriodSeconds": 1, "volumes": volumes,
			"initContainers": []object{{"name": "init", "image": "localhost/pause:1", "imagePullPolicy": "Never", "command": []string{"/bin/busybox", "true"}}},
			"containers": []object{{
				"name": "web", "image": "localhost/web:1", "imagePullPolicy": "Never", "volumeMounts": mounts,
				"securityContext": object{"runAsUser": spec.User},
			}},
		},
	}, &pod)
	n.until("pod "+spec.Name+" to run", func(ctx context.Context) error {
		if err := c.ask(ctx, http.MethodGet, pods+"/"+spec.Name, nil, &pod); err != nil {
			return err
		}
		if pod.Status.Phase != "Running" || len(pod.Status.ContainerStatuses) != 1 || pod.Status.ContainerStatuses[0].ContainerID == "" {
			return errors.New("it is " + pod.Status.Phase)
		}
		return nil
	})
	_, id, _ := strings.Cut(pod.Status.ContainerStatuses[0].ContainerID, "://")
	return &Running{
		Pod:         Pod{Namespace: spec.Namespace, Name: spec.Name, UID: pod.Metadata.UID, ServiceAccount: spec.ServiceAccount, Node: n.Name},
		ContainerID: id, node: n,
	}
}

// Exec runs a program in the pod's container and returns what it prints, with an error where it fails.
func (r *Running) Exec(args ...string) (string, error) {
	n := r.node
	n.execs++
	out, err := n.command("ctr", append([]string{"-a", n.socket, "-n", "k8s.io", "tasks", "exec",
		"--exec-id", fmt.Sprintf("exec%d", n.execs), r.ContainerID}, args...)...).CombinedOutput()
	return string(out), err
}

// PID is of the container's first process, as the machine counts.
func (r *Running) PID() int {
	n := r.node
	n.Cluster.t.Helper()
	for line := range strings.Lines(n.ctr("tasks", "ls")) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == r.ContainerID {
			pid, err := strconv.Atoi(fields[1])
			if err != nil {
				n.Cluster.t.Fatalf("%v", err)
			}
			return pid
		}
	}
	n.Cluster.t.Fatalf("no task of container %s", r.ContainerID)
	return 0
}

// MayAskKubelets gives a service account the right to get pods from kubelets and, as enable_namespace_labels needs, namespaces.
func (c *Cluster) MayAskKubelets(namespace, account string) {
	c.t.Helper()
	const rbac = "/apis/rbac.authorization.k8s.io/v1"
	c.must(http.MethodPost, rbac+"/clusterroles", object{
		"metadata": object{"name": "kubelets"},
		"rules": []object{
			{"apiGroups": []string{""}, "resources": []string{"nodes/proxy", "namespaces"}, "verbs": []string{"get"}},
		},
	}, nil)
	c.must(http.MethodPost, rbac+"/clusterrolebindings", object{
		"metadata": object{"name": "kubelets"},
		"roleRef":  object{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "kubelets"},
		"subjects": []object{{"kind": "ServiceAccount", "namespace": namespace, "name": account}},
	}, nil)
}
