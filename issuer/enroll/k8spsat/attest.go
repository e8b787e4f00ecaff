package k8spsat

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
	"github.com/lanyard-mtls/lanyard/internal/nodeattest/k8spsat"
	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/issuer/enroll"
	"github.com/lanyard-mtls/lanyard/issuer/enroll/k8spsat/kube"
)

// attestTimeout is what all questions to the API server may take for one agent.
const attestTimeout = 10 * time.Second

var errSlow = errors.New("no answer from the API server in time")

// Attest asks the API server of the agent's cluster whose token it shows, and for its pod and node.
func (m *Method) Attest(ctx context.Context, c enroll.Conversation) (enroll.Evidence, error) {
	shown, err := k8spsat.Parse(c.Payload)
	if err != nil {
		return enroll.Evidence{}, fmt.Errorf("%w: %w", enroll.ErrMalformed, err)
	}
	in := m.clusters[shown.Cluster]
	if in == nil {
		return enroll.Evidence{}, fmt.Errorf("%w: not configured for cluster %q", enroll.ErrMalformed, shown.Cluster)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, attestTimeout, errSlow)
	defer cancel()
	facts, err := in.facts(ctx, shown.Token)
	if err != nil {
		return enroll.Evidence{}, err
	}
	id, err := facts.AgentID(m.td, in.cfg.UsePodUIDForAgentID)
	if err != nil {
		return enroll.Evidence{}, fmt.Errorf("cluster %q: %w", in.name, err)
	}
	evidence := enroll.Evidence{ID: id, Reattestable: true}
	for _, value := range facts.Selectors() {
		evidence.Selectors = append(evidence.Selectors, registration.Selector{Type: nodeattest.K8sPSAT, Value: value})
	}
	return evidence, nil
}

// facts are those of the agent that has token, which is verified first. A deleted pod's token is taken by API servers for
// some seconds more: the pod must still be there, and be the one that the token is bound to, not another of its name.
func (c *cluster) facts(ctx context.Context, token string) (k8spsat.Facts, error) {
	user, err := c.user(ctx, token)
	if err != nil {
		return k8spsat.Facts{}, err
	}
	facts := k8spsat.Facts{Cluster: c.name, PodName: user.PodName, PodUID: user.PodUID}
	if facts.Namespace, facts.ServiceAccount, err = k8spsat.ParseUser(user.Name); err != nil {
		return k8spsat.Facts{}, c.refused("the token is of no service account: %w", err)
	}
	if account := facts.Namespace + ":" + facts.ServiceAccount; !slices.Contains(c.cfg.ServiceAccountAllowList, account) {
		return k8spsat.Facts{}, c.refused("%q is not an allowed service account", account)
	}
	if user.PodName == "" || user.PodUID == "" {
		return k8spsat.Facts{}, c.refused("the token is bound to no pod: it must be a projected one")
	}
	pod, err := c.api.Pod(ctx, facts.Namespace, user.PodName)
	switch {
	case errors.Is(err, kube.ErrNotFound):
		return k8spsat.Facts{}, c.refused("pod %q is not there any more", user.PodName)
	case err != nil:
		return k8spsat.Facts{}, c.failed("failed to get pod from k8s API server", err)
	case pod.UID != user.PodUID:
		return k8spsat.Facts{}, c.refused("pod UID mismatch for pod %q: token bound to pod UID %q", user.PodName, user.PodUID)
	case pod.NodeName == "":
		return k8spsat.Facts{}, c.refused("pod %q is on no node", user.PodName)
	case user.NodeName != "" && user.NodeName != pod.NodeName:
		return k8spsat.Facts{}, c.refused("pod %q is on node %q: token bound to node %q", user.PodName, pod.NodeName, user.NodeName)
	}
	node, err := c.api.Node(ctx, pod.NodeName)
	switch {
	case errors.Is(err, kube.ErrNotFound):
		return k8spsat.Facts{}, c.refused("node %q of pod %q is not there", pod.NodeName, user.PodName)
	case err != nil:
		return k8spsat.Facts{}, c.failed("failed to get node from k8s API server", err)
	}
	facts.NodeName, facts.NodeUID, facts.HostIP = pod.NodeName, node.UID, pod.HostIP
	facts.NodeLabels = only(c.cfg.AllowedNodeLabelKeys, node.Labels)
	facts.PodLabels = only(c.cfg.AllowedPodLabelKeys, pod.Labels)
	return facts, nil
}

// user has the token verified.
func (c *cluster) user(ctx context.Context, token string) (kube.User, error) {
	user, err := c.api.ReviewToken(ctx, token, c.audience)
	switch {
	case errors.Is(err, kube.ErrNotAuthenticated):
		return kube.User{}, c.refused("token not authenticated according to TokenReview API: %w", err)
	case err != nil:
		return kube.User{}, c.failed("unable to validate token with TokenReview API", err)
	}
	return user, nil
}

func (c *cluster) refused(format string, args ...any) error {
	return fmt.Errorf("%w: cluster %q: %w", enroll.ErrRefused, c.name, fmt.Errorf(format, args...))
}

// failed is trouble between the issuer and the API server. The log has all of it; strangers learn of what kind it is, and no
// addresses.
func (c *cluster) failed(what string, err error) error {
	c.log.Error(what, "error", err)
	var answer *kube.APIError
	switch {
	case errors.As(err, &answer):
		return fmt.Errorf("%s for cluster %q: it answers %d; the issuer's log says more", what, c.name, answer.Status)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, errSlow):
		return fmt.Errorf("%s for cluster %q: no answer in time", what, c.name)
	}
	return fmt.Errorf("%s for cluster %q: the issuer's log says why", what, c.name)
}

// only returns the labels with the keys.
func only(keys []string, labels map[string]string) map[string]string {
	kept := map[string]string{}
	for _, key := range keys {
		if value, ok := labels[key]; ok {
			kept[key] = value
		}
	}
	return kept
}
