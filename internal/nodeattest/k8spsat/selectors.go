package k8spsat

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Selectors returns the values of the agent's selectors, of the type k8s_psat, in SPIRE's order; labels in that of their
// keys.
func (f Facts) Selectors() []string {
	values := []string{
		"cluster:" + f.Cluster,
		"agent_ns:" + f.Namespace,
		"agent_sa:" + f.ServiceAccount,
		"agent_pod_name:" + f.PodName,
		"agent_pod_uid:" + f.PodUID,
		"agent_node_ip:" + f.HostIP,
		"agent_node_name:" + f.NodeName,
		"agent_node_uid:" + f.NodeUID,
	}
	values = append(values, labels("agent_node_label:", f.NodeLabels)...)
	return append(values, labels("agent_pod_label:", f.PodLabels)...)
}

func labels(prefix string, of map[string]string) []string {
	var values []string
	for _, key := range slices.Sorted(maps.Keys(of)) {
		values = append(values, prefix+key+":"+of[key])
	}
	return values
}

// ParseUser returns the namespace and the name of the service account that Kubernetes names as
// system:serviceaccount:NAMESPACE:NAME.
func ParseUser(username string) (namespace, name string, err error) {
	parts := strings.Split(username, ":")
	switch {
	case username == "":
		return "", "", errors.New("empty username")
	case len(parts) != 4 || parts[0] != "system" || parts[1] != "serviceaccount":
		return "", "", fmt.Errorf("%q is not a service account", username)
	case parts[2] == "":
		return "", "", errors.New("missing namespace")
	case parts[3] == "":
		return "", "", errors.New("missing service account name")
	}
	return parts[2], parts[3], nil
}
