package workloadattest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

// Plugin finds selectors of one type, such as docker's.
type Plugin interface {
	// Name is the type of the plugin's selectors.
	Name() string
	// Attest returns what the plugin knows of p, in any order. nil and nil: p is
	// none of the plugin's, such as a process in no container. An error is what
	// kept the plugin from knowing, such as a daemon that is away. It is called
	// for several processes at once, ends with ctx, and keeps nothing of p but
	// its key.
	Attest(ctx context.Context, p *Process) ([]registration.Selector, error)
}

// Report is how one attestor fared with one process.
type Report struct {
	// Plugin is its name: unix, docker, k8s, systemd.
	Plugin string
	Took   time.Duration
	// Selectors is how many it found.
	Selectors int
	// Err is why it found none, or not all; nil: there are no more.
	Err error
}

// Result is what attestation found.
type Result struct {
	// Selectors are sorted and unlike.
	Selectors []registration.Selector
	// Reports has one of each attestor, unix first.
	Reports []Report
}

// Incomplete says which attestors failed; nil: none. Then there may be selectors
// that are not in the result: an identity that is missing must not be denied for
// good, and those that are there are good.
func (r Result) Incomplete() error {
	var errs []error
	for _, rep := range r.Reports {
		if rep.Err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", rep.Plugin, rep.Err))
		}
	}
	return errors.Join(errs...)
}

// ProcessInfo describes a process to an operator.
type ProcessInfo struct {
	// PID is in the agent's PID namespace.
	PID int
	// UID and GID are the effective ones.
	UID, GID uint32
	// Executable is as the process sees it; "" if it may not be read.
	Executable string
	Started    time.Time
	// ContainerID is 64 hex digits; "" where the process is in no container.
	ContainerID string
}
