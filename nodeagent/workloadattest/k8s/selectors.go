package k8s

import (
	"strconv"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

// podSelectors are SPIRE's. Images are named both as the pod asked for them and
// by their digest; which tag the first has is the runtime's choice where one
// image has several.
func podSelectors(p *pod) []string {
	m := &p.Metadata
	values := []string{
		"sa:" + p.Spec.ServiceAccountName,
		"ns:" + m.Namespace,
		"node-name:" + p.Spec.NodeName,
		"pod-uid:" + m.UID,
		"pod-name:" + m.Name,
		"pod-image-count:" + strconv.Itoa(len(p.Status.Containers)),
		"pod-init-image-count:" + strconv.Itoa(len(p.Status.InitContainers)),
	}
	values = append(values, images("pod-image:", p.Status.Containers...)...)
	values = append(values, images("pod-init-image:", p.Status.InitContainers...)...)
	for key, value := range m.Labels {
		values = append(values, "pod-label:"+key+":"+value)
	}
	for _, owner := range m.OwnerReferences {
		values = append(values, "pod-owner:"+owner.Kind+":"+owner.Name, "pod-owner-uid:"+owner.Kind+":"+owner.UID)
	}
	return values
}

func containerSelectors(c *container) []string {
	return append(images("container-image:", *c), "container-name:"+c.Name)
}

func images(prefix string, of ...container) []string {
	var values []string
	for _, c := range of {
		values = append(values, prefix+c.ImageID, prefix+c.Image)
	}
	return values
}

func labelSelectors(labels map[string]string) []string {
	var values []string
	for key, value := range labels {
		values = append(values, "ns-label:"+key+":"+value)
	}
	return values
}

// selectors makes selectors of the values, each once.
func selectors(values []string) []registration.Selector {
	seen := make(map[string]bool, len(values))
	var all []registration.Selector
	for _, v := range values {
		if !seen[v] {
			seen[v] = true
			all = append(all, registration.Selector{Type: Name, Value: v})
		}
	}
	return all
}
