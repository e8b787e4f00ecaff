package kube

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// User is whom a token is of.
type User struct {
	// Name is system:serviceaccount:NAMESPACE:NAME for service accounts.
	Name string
	// PodName, PodUID and NodeName say to what the token is bound; "" where the API server says nothing of it.
	PodName, PodUID, NodeName string
}

// ErrNotAuthenticated says that the API server does not take a token for good, or not for the audiences.
var ErrNotAuthenticated = errors.New("not authenticated")

type tokenReview struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Spec       tokenReviewSpec   `json:"spec"`
	Status     tokenReviewStatus `json:"status,omitzero"`
}

type tokenReviewSpec struct {
	Token     string   `json:"token"`
	Audiences []string `json:"audiences,omitempty"`
}

type tokenReviewStatus struct {
	Authenticated bool
	Audiences     []string
	Error         string
	User          struct {
		Username string
		Extra    map[string][]string
	}
}

// ReviewToken asks whose token is (TokenReview of authentication.k8s.io/v1). It must be for one of the audiences; none is
// that of the API server itself.
func (c *Client) ReviewToken(ctx context.Context, token string, audiences []string) (User, error) {
	var review tokenReview
	err := c.do(ctx, call{
		method: http.MethodPost, path: "/apis/authentication.k8s.io/v1/tokenreviews", accept: "application/json",
		body: tokenReview{APIVersion: "authentication.k8s.io/v1", Kind: "TokenReview", Spec: tokenReviewSpec{token, audiences}},
	}, &review)
	if err != nil {
		return User{}, err
	}
	return review.Status.user(audiences)
}

// user is whose token it was.
func (status tokenReviewStatus) user(audiences []string) (User, error) {
	if !status.Authenticated {
		if status.Error != "" {
			return User{}, fmt.Errorf("%w: %s", ErrNotAuthenticated, oneLine(status.Error))
		}
		return User{}, ErrNotAuthenticated
	}
	// An API server that knows nothing of audiences leaves the list empty, and takes tokens for any.
	if len(audiences) > 0 && !slices.ContainsFunc(audiences, func(want string) bool { return slices.Contains(status.Audiences, want) }) {
		return User{}, fmt.Errorf("%w: for the audiences %q, want one of %q", ErrNotAuthenticated, status.Audiences, audiences)
	}
	user := User{Name: status.User.Username}
	for _, field := range []struct {
		of  string
		out *string
	}{{"pod-name", &user.PodName}, {"pod-uid", &user.PodUID}, {"node-name", &user.NodeName}} {
		switch values := status.User.Extra["authentication.kubernetes.io/"+field.of]; {
		case len(values) > 1:
			return User{}, fmt.Errorf("the API server names %d of %s for one token", len(values), field.of)
		case len(values) == 1:
			*field.out = values[0]
		}
	}
	return user, nil
}

// Pod is what counts of a pod.
type Pod struct {
	UID      string
	NodeName string // "" before it is scheduled
	HostIP   string // "" before it is started
	Labels   map[string]string
}

type metadata struct {
	UID    string
	Name   string
	Labels map[string]string
}

// Pod asks for a pod.
func (c *Client) Pod(ctx context.Context, namespace, name string) (Pod, error) {
	if err := errors.Join(checkName("namespace", namespace), checkName("pod", name)); err != nil {
		return Pod{}, err
	}
	var pod struct {
		Metadata metadata
		Spec     struct{ NodeName string }
		Status   struct{ HostIP string }
	}
	err := c.do(ctx, call{method: http.MethodGet, path: "/api/v1/namespaces/" + namespace + "/pods/" + name, accept: "application/json"}, &pod)
	if err != nil {
		return Pod{}, err
	}
	if pod.Metadata.Name != name {
		return Pod{}, fmt.Errorf("the API server answers with pod %q, asked for %q", pod.Metadata.Name, name)
	}
	return Pod{UID: pod.Metadata.UID, NodeName: pod.Spec.NodeName, HostIP: pod.Status.HostIP, Labels: pod.Metadata.Labels}, nil
}

// Node is what counts of a node.
type Node struct {
	UID    string
	Labels map[string]string
}

// Node asks for a node; its metadata alone, as its status is long.
func (c *Client) Node(ctx context.Context, name string) (Node, error) {
	if err := checkName("node", name); err != nil {
		return Node{}, err
	}
	var node struct{ Metadata metadata }
	err := c.do(ctx, call{
		method: http.MethodGet, path: "/api/v1/nodes/" + name,
		accept: "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json",
	}, &node)
	if err != nil {
		return Node{}, err
	}
	if node.Metadata.Name != name {
		return Node{}, fmt.Errorf("the API server answers with node %q, asked for %q", node.Metadata.Name, name)
	}
	return Node{UID: node.Metadata.UID, Labels: node.Metadata.Labels}, nil
}

// checkName holds that a name, which becomes part of a path, is one (a DNS subdomain of RFC 1123, as Kubernetes has it).
func checkName(kind, name string) error {
	bad := func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '.' }
	if name == "" || len(name) > 253 || strings.ContainsFunc(name, bad) || strings.Trim(name, "-.") != name || strings.Contains(name, "..") {
		return fmt.Errorf("%q is not the name of a %s", name, kind)
	}
	return nil
}
