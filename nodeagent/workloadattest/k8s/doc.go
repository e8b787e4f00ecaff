// Package k8s attests what Kubernetes runs: it finds a process's pod by its
// cgroup and asks the node's kubelet what the pod is. What the kubelet says is
// kept, and found by container: a process of a known container costs no request.
// The package does not talk to the API server, but for the labels of namespaces.
package k8s
