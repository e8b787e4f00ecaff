// Package systemd attests what systemd runs: it asks the system's service
// manager over D-Bus which unit a process belongs to. It knows nothing of the
// managers of users: their processes belong to the unit user@UID.service, as in
// SPIRE.
package systemd

import (
	"context"
	"errors"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

// Name is the type of the selectors.
const Name = "systemd"

// timeout is how long one process's attestation may take in all. The service
// manager answers within a millisecond; while it executes itself anew
// (daemon-reexec) it may take a second.
const timeout = 5 * time.Second

// Config is where systemd is found.
type Config struct {
	// Socket is the path of the system's message bus; "" is that of
	// $DBUS_SYSTEM_BUS_ADDRESS, or else /run/dbus/system_bus_socket.
	Socket string
}

// Plugin is a [workloadattest.Plugin]. It keeps one connection to the message
// bus, and makes another when that breaks.
type Plugin struct{ bus *bus }

// New returns a plugin that connects at the first process it attests.
func New(cfg Config) *Plugin {
	return &Plugin{bus: newBus(cfg.Socket)}
}

// Name is the type of its selectors.
func (*Plugin) Name() string { return Name }

// Attest returns the selectors id:UNIT and fragment_path:PATH, as SPIRE's, and
// invocation_id of 32 hex digits, which is another one at each start of the unit.
// A process in no unit has none.
func (p *Plugin) Attest(ctx context.Context, proc *workloadattest.Process) ([]registration.Selector, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	u, err := p.bus.unitOf(ctx, proc)
	// The answer is about a number. If the process lives still, that was its own.
	if gone := proc.Check(); gone != nil {
		return nil, gone
	}
	switch {
	case errors.Is(err, errNoUnit):
		return nil, nil
	case err != nil:
		return nil, err
	}
	selectors := []registration.Selector{
		{Type: Name, Value: "id:" + u.id},
		{Type: Name, Value: "fragment_path:" + u.fragmentPath},
	}
	if u.invocationID != "" {
		selectors = append(selectors, registration.Selector{Type: Name, Value: "invocation_id:" + u.invocationID})
	}
	return selectors, nil
}

// Close closes the connection to the message bus.
func (p *Plugin) Close() error { return p.bus.close() }
