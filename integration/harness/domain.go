package harness

import (
	"context"
	"fmt"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// startLimit is how long a program may take until it is ready: generous, as two processors may be busy compiling.
const startLimit = 30 * time.Second

// Tool is a command line: Lanyard's role, or SPIRE's binary of the same verbs.
type Tool struct {
	Path   string
	Prefix []string
}

func (tool Tool) args(args ...string) []string {
	return append(append([]string{}, tool.Prefix...), args...)
}

// Options say what a domain is made of. The zero value is Lanyard's issuer and agent.
type Options struct {
	TrustDomain  string // lanyard.test if empty
	SPIREServer  string // path of a real spire-server to use as the issuer
	SPIREAgent   string // path of a real spire-agent to use as the agent
	SyncInterval string // of the agent, a Go duration; SPIRE's 5 s if empty
}

// Domain is a trust domain on one machine: an issuer and an agent.
type Domain struct {
	*Stage
	Name          string // the trust domain
	Issuer, Agent *Process
	IssuerAddr    string // host:port of the issuer's TCP API
	IssuerSocket  string // the admin socket
	AgentSocket   string // the Workload API
	NodeID        string // parent of entries

	options              Options
	issuerTool           Tool
	agentTool            Tool
	issuerConf, agntConf string
}

// NewDomain names a domain's parts and starts nothing.
func NewDomain(t T, bin string, options Options) *Domain {
	t.Helper()
	if options.TrustDomain == "" {
		options.TrustDomain = "lanyard.test"
	}
	if options.SyncInterval == "" {
		options.SyncInterval = "1s"
	}
	s := NewStage(t, bin)
	d := &Domain{
		Stage: s, Name: options.TrustDomain, options: options, IssuerAddr: s.Addr(),
		IssuerSocket: s.Path("is", "api.sock"), AgentSocket: s.Path("ag", "public", "api.sock"),
		issuerTool: Tool{bin + "/lanyard", []string{"issuer"}}, agentTool: Tool{bin + "/lanyard", []string{"agent"}},
	}
	d.NodeID = d.ID("/node")
	if options.SPIREServer != "" {
		d.issuerTool = Tool{Path: options.SPIREServer}
	}
	if options.SPIREAgent != "" {
		d.agentTool = Tool{Path: options.SPIREAgent}
	}
	d.issuerConf = s.WriteFile("server.conf", d.serverConf())
	d.agntConf = s.WriteFile("agent.conf", d.agentConf())
	return d
}

// Start starts issuer and agent, the agent with a join token of its own.
func (d *Domain) Start() {
	d.Helper()
	d.StartIssuer()
	d.StartAgent(d.Token("-spiffeID", d.NodeID))
}

// ID is a SPIFFE ID of the domain.
func (d *Domain) ID(path string) string { return "spiffe://" + d.Name + path }

// StartIssuer starts the issuer, again on the same state after it was ended, and waits until it is healthy.
func (d *Domain) StartIssuer() {
	d.Helper()
	d.Issuer = d.Stage.Start("issuer", d.issuerTool.Path, d.issuerTool.args("run", "-config", d.issuerConf)...)
	err := d.Issuer.ready(d.Context(), startLimit, func(ctx context.Context) error {
		_, err := d.TryAdmin(ctx, "healthcheck")
		return err
	})
	if err != nil {
		d.Fatalf("%v", err)
	}
}

// StartAgent starts the agent; with no token where it has joined before. It waits until the agent is healthy.
func (d *Domain) StartAgent(token string) {
	d.Helper()
	d.Agent = d.LaunchAgent(token)
	if err := d.AgentReady(); err != nil {
		d.Fatalf("%v", err)
	}
}

// LaunchAgent starts the agent and waits for nothing.
func (d *Domain) LaunchAgent(token string) *Process {
	d.Helper()
	d.writeBundle()
	args := d.agentTool.args("run", "-config", d.agntConf)
	if token != "" {
		args = append(args, "-joinToken", token)
	}
	d.Agent = d.Stage.Start("agent", d.agentTool.Path, args...)
	return d.Agent
}

// AgentReady waits until the agent is healthy.
func (d *Domain) AgentReady() error {
	return d.Agent.ready(d.Context(), startLimit, func(ctx context.Context) error {
		_, err := Run(ctx, d.agentTool.Path, d.agentTool.args("healthcheck", "-socketPath", d.AgentSocket)...)
		return err
	})
}

// writeBundle puts the domain's bundle where the agent's configuration expects it, if the issuer runs.
func (d *Domain) writeBundle() {
	d.Helper()
	if !d.Issuer.Running() {
		return
	}
	if err := os.WriteFile(d.Path("bundle.pem"), []byte(d.Admin("bundle", "show")), 0o600); err != nil {
		d.Fatalf("%v", err)
	}
}

// Admin runs a verb of the issuer's command line on its admin socket.
func (d *Domain) Admin(args ...string) string {
	d.Helper()
	out, err := d.TryAdmin(d.Context(), args...)
	if err != nil {
		d.Fatalf("%v", err)
	}
	return out
}

// TryAdmin is Admin for where an error is expected.
func (d *Domain) TryAdmin(ctx context.Context, args ...string) (string, error) {
	return Run(ctx, d.issuerTool.Path, append(d.issuerTool.args(args...), "-socketPath", d.IssuerSocket)...)
}

var (
	tokenLine = regexp.MustCompile(`(?m)^Token: (\S+)`)
	entryLine = regexp.MustCompile(`(?m)^Entry ID\s*: (\S+)`)
)

// Token generates a join token.
func (d *Domain) Token(args ...string) string {
	d.Helper()
	out := d.Admin(append([]string{"token", "generate"}, args...)...)
	match := tokenLine.FindStringSubmatch(out)
	if match == nil {
		d.Fatalf("no token in %q", out)
	}
	return match[1]
}

// Entry registers a workload: the binary at path, run by this user. The ttl is that of its SVIDs; 0 is the issuer's
// default. It returns the entry's ID.
func (d *Domain) Entry(spiffeID, path string, ttl time.Duration) string {
	d.Helper()
	return d.CreateEntry(spiffeID, ttl, "unix:path:"+path, "unix:uid:"+strconv.Itoa(os.Getuid()))
}

// CreateEntry registers a workload by selectors, and returns the entry's ID.
func (d *Domain) CreateEntry(spiffeID string, ttl time.Duration, selectors ...string) string {
	d.Helper()
	args := []string{"entry", "create", "-parentID", d.NodeID, "-spiffeID", spiffeID,
		"-x509SVIDTTL", strconv.Itoa(int(ttl.Seconds()))}
	for _, selector := range selectors {
		args = append(args, "-selector", selector)
	}
	out := d.Admin(args...)
	match := entryLine.FindStringSubmatch(out)
	if match == nil {
		d.Fatalf("no entry ID in %q", out)
	}
	return match[1]
}

// EntryIDs are the IDs of all entries.
func (d *Domain) EntryIDs() []string {
	d.Helper()
	var ids []string
	for _, match := range entryLine.FindAllStringSubmatch(d.Admin("entry", "show"), -1) {
		ids = append(ids, match[1])
	}
	return ids
}

// WorkloadAPI is the address of the agent's Workload API as clients take it.
func (d *Domain) WorkloadAPI() string { return "unix://" + d.AgentSocket }

func (d *Domain) hostPort() (host, port string) {
	host, port, err := net.SplitHostPort(d.IssuerAddr)
	if err != nil {
		d.Fatalf("%v", err)
	}
	return host, port
}

// conf fills in the settings that stand between « and ».
func conf(text string, pairs ...string) string {
	for i := 0; i < len(pairs); i += 2 {
		text = strings.ReplaceAll(text, "«"+pairs[i]+"»", fmt.Sprintf("%q", pairs[i+1]))
	}
	return text
}
