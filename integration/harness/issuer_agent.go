package harness

import (
	"context"
	"fmt"
	"net"
	"os"
	"regexp"
	"strconv"
	"time"
)

// AgentSpec is an agent of an issuer, ours or SPIRE's: both are given the same agent.conf.
type AgentSpec struct {
	SPIREAgent string // path of a real spire-agent; ours if empty
	Attestor   string // its NodeAttestor block; join_token if empty
	Sync       string // how often it asks the issuer, a Go duration; 1 s if empty
	Agent      string // lines of the agent block; it has an experimental block already
}

// Agent is an agent of an issuer.
type Agent struct {
	*Stage
	Process *Process
	Socket  string // the Workload API
	Admin   string // the admin socket
	Conf    string // its configuration file
	Data    string // its data_dir

	issuer *Issuer
	tool   Tool
	name   string
}

// NewAgent writes the configuration of an agent that joins the issuer, and starts nothing.
func NewAgent(i *Issuer, spec AgentSpec) *Agent {
	i.Helper()
	if spec.Sync == "" {
		spec.Sync = "1s"
	}
	if spec.Attestor == "" {
		spec.Attestor = "NodeAttestor \"join_token\" {\n    plugin_data {}\n  }"
	}
	name := i.Unique("agent")
	a := &Agent{
		Stage: i.Stage, Socket: i.Path(name, "s", "api.sock"), Admin: i.Path(name, "a", "admin.sock"), Data: i.Path(name, "data"), issuer: i, name: name,
		tool: Tool{i.Bin + "/lanyard", []string{"agent"}},
	}
	if spec.SPIREAgent != "" {
		a.tool = Tool{Path: spec.SPIREAgent}
	}
	host, port, err := net.SplitHostPort(i.Addr)
	if err != nil {
		i.Fatalf("%v", err)
	}
	a.Conf = i.WriteFile(name+"/agent.conf", conf(`agent {
  trust_domain      = «td»
  server_address    = «host»
  server_port       = `+port+`
  socket_path       = «socket»
  admin_socket_path = «admin»
  data_dir          = «data»
  trust_bundle_path = «bundle»
  log_level         = "DEBUG"
  experimental {
    sync_interval = «sync»
  }
`+spec.Agent+`
}
plugins {
  KeyManager "disk" {
    plugin_data {
      directory = «data»
    }
  }
  `+spec.Attestor+`
  WorkloadAttestor "unix" {
    plugin_data {
      discover_workload_path = true
      workload_size_limit    = -1
    }
  }
}
`, "td", i.TrustDomain, "host", host, "socket", a.Socket, "admin", a.Admin, "data", a.Data, "bundle", i.Path(i.name, "bundle.pem"), "sync", spec.Sync))
	return a
}

// Launch starts the agent with a join token, or with none, and waits for nothing.
func (a *Agent) Launch(token string) *Process {
	a.Helper()
	if _, err := os.Stat(a.Path(a.issuer.name, "bundle.pem")); err != nil {
		a.issuer.BundleFile()
	}
	args := a.tool.args("run", "-config", a.Conf)
	if token != "" {
		args = append(args, "-joinToken", token)
	}
	a.Process = a.Stage.Start(a.name, a.tool.Path, args...)
	return a.Process
}

// Start starts the agent and waits until it is healthy.
func (a *Agent) Start(token string) {
	a.Helper()
	a.Launch(token)
	err := a.Process.ready(a.Context(), startLimit, func(ctx context.Context) error {
		_, err := Run(ctx, a.tool.Path, a.tool.args("healthcheck", "-socketPath", a.Socket)...)
		return err
	})
	if err != nil {
		a.Fatalf("%v", err)
	}
}

// Ended waits until the agent has ended by itself, for at most the limit.
func (a *Agent) Ended(limit time.Duration) {
	a.Helper()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-a.Process.Done():
	case <-timer.C:
		a.Fatalf("%s has not ended within %v; it said:\n%s", a.name, limit, a.Process.Log.Tail(20))
	}
}

// WorkloadAPI is the address of the agent's Workload API as clients take it.
func (a *Agent) WorkloadAPI() string { return "unix://" + a.Socket }

// Token generates a join token, for an agent that has the ID as well.
func (i *Issuer) Token(spiffeID string) string {
	i.Helper()
	out := i.Admin("token", "generate", "-spiffeID", spiffeID)
	match := tokenLine.FindStringSubmatch(out)
	if match == nil {
		i.Fatalf("no token in %q", out)
	}
	return match[1]
}

// Entry registers a workload below a parent, the binary at path run by this user, and returns the entry's ID.
func (i *Issuer) Entry(parent, spiffeID, path string, args ...string) string {
	i.Helper()
	out := i.Admin(append([]string{"entry", "create", "-parentID", parent, "-spiffeID", spiffeID, "-selector", "unix:path:" + path,
		"-selector", "unix:uid:" + strconv.Itoa(os.Getuid())}, args...)...)
	match := entryLine.FindStringSubmatch(out)
	if match == nil {
		i.Fatalf("no entry ID in %q", out)
	}
	return match[1]
}

var (
	agentLine  = regexp.MustCompile(`(?m)^SPIFFE ID\s*: (\S+)`)
	serialLine = regexp.MustCompile(`(?m)^Serial number\s*: (\d+)`)
)

// AgentIDs are the IDs of all agents.
func (i *Issuer) AgentIDs() []string {
	i.Helper()
	var ids []string
	for _, match := range agentLine.FindAllStringSubmatch(i.Admin("agent", "list"), -1) {
		ids = append(ids, match[1])
	}
	return ids
}

// Serial is the serial number of an agent's SVID.
func (i *Issuer) Serial(ctx context.Context, agentID string) (string, error) {
	out, err := i.TryAdmin(ctx, "agent", "show", "-spiffeID", agentID)
	if err != nil {
		return "", err
	}
	match := serialLine.FindStringSubmatch(out)
	if match == nil {
		return "", fmt.Errorf("no serial number in %q", out)
	}
	return match[1], nil
}

var authorityLine = regexp.MustCompile(`(?m)^\s*Authority ID: (\S+)`)

// ActiveAuthority is the ID of the authority that signs; kind is x509 or jwt.
func (i *Issuer) ActiveAuthority(kind string) string {
	i.Helper()
	return i.authority(i.Admin("localauthority", kind, "show"))
}

// Authority prepares, activates, taints or revokes an authority, and returns its ID.
func (i *Issuer) Authority(kind, verb, id string) string {
	i.Helper()
	args := []string{"localauthority", kind, verb}
	if id != "" {
		args = append(args, "-authorityID", id)
	}
	return i.authority(i.Admin(args...))
}

func (i *Issuer) authority(out string) string {
	i.Helper()
	match := authorityLine.FindStringSubmatch(out)
	if match == nil {
		i.Fatalf("no authority in %q", out)
	}
	return match[1]
}
