package integration

import (
	"context"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// rotatingLife is the life of an SVID that is to be replaced every other second.
const rotatingLife = 4 * time.Second

// pair is a client and a server sidecar before a program.
type pair struct {
	*harness.Stage
	domain         *harness.Domain // nil if the identities are files
	client, server *harness.Sidecar
}

// newPair starts one with the identities of a real agent; ttl is the life of its SVIDs.
func newPair(t *testing.T, d *harness.Domain, target string, ttl time.Duration, args ...string) *pair {
	t.Helper()
	name := d.Unique("pair")
	p := &pair{Stage: d.Stage, domain: d}
	clientID, serverID := d.ID("/"+name+"/client"), d.ID("/"+name+"/server")
	start := func(id, mode, target string, rule ...string) *harness.Sidecar {
		binary := d.Copy(d.SidecarBinary(), name+mode)
		d.Entry(id, binary, ttl)
		return d.Sidecar(harness.SidecarSpec{Name: name + " " + mode, Binary: binary, Mode: mode, Target: target,
			WorkloadAPI: d.WorkloadAPI(), Args: slices.Concat([]string{"--log-format", "json"}, rule, args)})
	}
	p.server = start(serverID, "server", target, "--allow-uri", clientID)
	p.client = start(clientID, "client", p.server.Listen, "--verify-uri", serverID)
	p.server.Probed(1)
	return p
}

// newDomain starts an issuer and an agent.
func newDomain(t *testing.T) *harness.Domain {
	t.Helper()
	d := harness.NewDomain(t, bin, harness.Options{})
	d.Start()
	return d
}

// rotated returns once both sidecars have got another identity than they had when it was called.
func (p *pair) rotated() {
	p.Helper()
	for _, side := range []*harness.Sidecar{p.client, p.server} {
		before := len(side.Logged("identity received"))
		p.Until(3*rotatingLife, side.Name+" to rotate", func(context.Context) error {
			return atLeast(len(side.Logged("identity received")), before+1)
		})
	}
}

// connections waits until a sidecar has left n records of connections, those of probes aside, and fails the test if there are more or if one
// of them has another cause than those given.
func connections(t *testing.T, side *harness.Sidecar, n int, causes ...string) []map[string]any {
	t.Helper()
	var records []map[string]any
	err := harness.Until(t.Context(), fetchLimit, side.Name+" to record its connections", func(context.Context) error {
		records = side.Logged("connection")[side.Probes():]
		return atLeast(len(records), n)
	})
	if err != nil || len(records) != n {
		t.Errorf("%s: %d records, want %d: %v", side.Name, len(records), n, err)
	}
	for _, record := range records {
		ok := len(causes) == 0
		for _, cause := range causes {
			ok = ok || record["cause"] == cause
		}
		if !ok {
			t.Errorf("%s: cause %q, want one of %q: %v", side.Name, record["cause"], causes, record)
		}
	}
	return records
}

// program is the path of a command, or the reason to skip the test.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("no %s: make test installs it where it can", name)
	}
	return path
}

// run runs a program to its end and returns its standard output.
func run(t *testing.T, path string, args ...string) string {
	t.Helper()
	out, err := harness.Run(t.Context(), path, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
