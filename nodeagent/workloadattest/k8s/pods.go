package k8s

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// pod is what attestation needs of a Pod (Kubernetes API v1).
type pod struct {
	Metadata struct {
		Name            string            `json:"name"`
		Namespace       string            `json:"namespace"`
		UID             string            `json:"uid"`
		Labels          map[string]string `json:"labels"`
		OwnerReferences []struct {
			Kind string `json:"kind"`
			Name string `json:"name"`
			UID  string `json:"uid"`
		} `json:"ownerReferences"`
	} `json:"metadata"`
	Spec struct {
		ServiceAccountName string `json:"serviceAccountName"`
		NodeName           string `json:"nodeName"`
	} `json:"spec"`
	Status struct {
		Containers          []container `json:"containerStatuses"`
		InitContainers      []container `json:"initContainerStatuses"`
		EphemeralContainers []container `json:"ephemeralContainerStatuses"`
	} `json:"status"`
}

// container is a ContainerStatus.
type container struct {
	Name string `json:"name"`
	// ContainerID is RUNTIME://ID, "" while there is none.
	ContainerID string `json:"containerID"`
	Image       string `json:"image"`
	ImageID     string `json:"imageID"`
}

func (c container) id() string {
	_, id, _ := strings.Cut(c.ContainerID, "://")
	return id
}

// parsePods reads a PodList and calls each with one pod after the other: a list
// of hundreds is megabytes long, most of it of no concern.
func parsePods(r io.Reader, each func(*pod)) error {
	d := json.NewDecoder(r)
	if err := expect(d, '{'); err != nil {
		return err
	}
	found := false
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return badList(err)
		}
		if key != "items" {
			var skipped skip
			if err := d.Decode(&skipped); err != nil {
				return badList(err)
			}
			continue
		}
		if found {
			return badList(errors.New("items is there twice"))
		}
		found = true
		if err := parseItems(d, each); err != nil {
			return err
		}
	}
	if !found {
		return badList(errors.New("no items"))
	}
	return expect(d, '}')
}

func parseItems(d *json.Decoder, each func(*pod)) error {
	start, err := d.Token()
	switch {
	case err != nil:
		return badList(err)
	case start == nil: // how Go writes an empty list that never had any
		return nil
	case start != json.Delim('['):
		return badList(errors.New("items is no array"))
	}
	for d.More() {
		p := new(pod)
		if err := d.Decode(p); err != nil {
			return badList(err)
		}
		each(p)
	}
	return expect(d, ']')
}

func expect(d *json.Decoder, want json.Delim) error {
	token, err := d.Token()
	if err == nil && token != want {
		err = fmt.Errorf("%v instead of %v", token, want)
	}
	if err != nil {
		return badList(err)
	}
	return nil
}

// badList names what is read. Nothing of the list itself is in the errors of
// encoding/json but a character, or the name of a type.
func badList(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("unable to parse kubelet response: %w", err)
}

// skip is a JSON value that is not kept.
type skip struct{}

// UnmarshalJSON implements [json.Unmarshaler].
func (*skip) UnmarshalJSON([]byte) error { return nil }
