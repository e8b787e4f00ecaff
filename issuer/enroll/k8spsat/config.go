// Package k8spsat owns the issuer's half of the node attestation k8s_psat: an agent shows its pod's projected service
// account token, the API server of the pod's cluster says whose it is (package kube), and the facts about pod and node make
// the agent's SPIFFE ID and selectors (internal/nodeattest/k8spsat). Nothing that an agent says is believed but the name of
// its cluster and its token. It keeps no record of who joined; the same pod may join again.
package k8spsat

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/nodeattest/k8spsat"
	"github.com/lanyard-mtls/lanyard/issuer/enroll/k8spsat/kube"
)

// Config says whose agents may join. The names in brackets are SPIRE's keys.
type Config struct {
	TrustDomain spiffeid.TrustDomain
	// Clusters are the clusters by the names that agents send [clusters].
	Clusters map[string]Cluster
	// Log may be nil.
	Log *slog.Logger
}

// Cluster is one cluster.
type Cluster struct {
	// ServiceAccountAllowList names the service accounts of agents, each as NAMESPACE:NAME; at least one
	// [service_account_allow_list].
	ServiceAccountAllowList []string
	// Audience is whom tokens must be meant for, one of them at least: nil is spire-server, and an empty list that is not
	// nil the API server's own [audience].
	Audience []string
	// KubeConfigFile is how the API server is reached; "" is the cluster that the issuer runs in [kube_config_file].
	KubeConfigFile string
	// AllowedNodeLabelKeys and AllowedPodLabelKeys are the labels that become selectors [allowed_node_label_keys,
	// allowed_pod_label_keys].
	AllowedNodeLabelKeys, AllowedPodLabelKeys []string
	// UsePodUIDForAgentID names agents by their pod, for more than one agent on a node [use_pod_uid_for_agent_id].
	UsePodUIDForAgentID bool
}

// Method attests agents by k8s_psat. It is safe for concurrent use.
type Method struct {
	td       spiffeid.TrustDomain
	clusters map[string]*cluster
}

type cluster struct {
	name     string
	cfg      Cluster
	audience []string
	api      *kube.Client
	log      *slog.Logger
}

// New returns the method. It reads no file and connects to nothing; see Check. It fails on what can't be right; what
// can't match is logged.
func New(cfg Config) (*Method, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if len(cfg.Clusters) == 0 {
		cfg.Log.Warn("k8s_psat has no clusters: nobody can join by it")
	}
	m := &Method{td: cfg.TrustDomain, clusters: map[string]*cluster{}}
	var errs []error
	names := slices.Sorted(maps.Keys(cfg.Clusters))
	for _, name := range names {
		c := cfg.Clusters[name]
		errs = append(errs, checkCluster(name, c, names))
		for _, account := range c.ServiceAccountAllowList {
			if _, _, err := k8spsat.ParseUser("system:serviceaccount:" + account); err != nil {
				cfg.Log.Warn("service_account_allow_list: nobody has this name, it must be NAMESPACE:NAME", "cluster", name, "service_account", account)
			}
		}
		audience := c.Audience
		if audience == nil {
			audience = []string{k8spsat.DefaultAudience}
		}
		log := cfg.Log.With("cluster", name)
		m.clusters[name] = &cluster{
			name: name, cfg: c, audience: audience, log: log,
			api: kube.New(kube.Config{KubeConfigFile: c.KubeConfigFile, Log: log}),
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return m, nil
}

func checkCluster(name string, c Cluster, names []string) error {
	if err := k8spsat.CheckCluster(name); err != nil {
		return err
	}
	for _, other := range names {
		// Below a/pod, agents of the cluster a are named by their pods.
		if strings.HasPrefix(name, other+"/") {
			return fmt.Errorf("clusters %q and %q: agents of one could have the SPIFFE IDs of the other's; rename one", other, name)
		}
	}
	if len(c.ServiceAccountAllowList) == 0 {
		return fmt.Errorf("cluster %q configuration must have at least one service account allowed: set "+
			"service_account_allow_list, such as [\"spire:spire-agent\"]", name)
	}
	return nil
}

// Check reads the files by which the clusters are reached, and reports what is wrong with them. It connects to nothing.
func (m *Method) Check() error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(m.clusters)) {
		if err := m.clusters[name].api.Check(); err != nil {
			errs = append(errs, fmt.Errorf("cluster %q: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// Close ends connections that are not in use.
func (m *Method) Close() {
	for _, c := range m.clusters {
		c.api.Close()
	}
}
