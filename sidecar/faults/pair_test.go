package faults_test

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/internal/workload/workloadtest"
	"github.com/lanyard-mtls/lanyard/sidecar"
	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/policy"
)

const (
	clientID = "spiffe://one.test/client"
	serverID = "spiffe://one.test/server"
	limit    = time.Minute     // what a test waits for anything at most
	patience = 8 * time.Second // of the sidecars with a handshake
)

// pair is a client and a server sidecar, each with an agent of its own.
type pair struct {
	t              *testing.T
	ca             *testca.CA
	agents         map[string]*workloadtest.Server // by SPIFFE ID
	client, server *side
}

// side is a sidecar that runs.
type side struct {
	addr  string
	log   *journal
	stop  context.CancelFunc
	ended chan error
}

func newPair(t *testing.T, target string) *pair {
	t.Helper()
	p := &pair{t: t, ca: testca.New(t, "one.test"), agents: map[string]*workloadtest.Server{}}
	for _, id := range []string{clientID, serverID} {
		p.agents[id] = workloadtest.Start(t, []*x509svid.SVID{p.ca.SVID(t, id)}, p.ca.Bundle())
	}
	p.server = p.start(sidecar.Tunnel{Mode: sidecar.Server, Target: target,
		Identity: identity.Config{WorkloadAPI: p.agents[serverID].Addr()}, Policy: policy.Config{AllowURIs: []string{clientID}}})
	p.client = p.start(sidecar.Tunnel{Mode: sidecar.Client, Target: p.server.addr,
		Identity: identity.Config{WorkloadAPI: p.agents[clientID].Addr()}, Policy: policy.Config{AllowURIs: []string{serverID}}})
	return p
}

// start runs a sidecar of one tunnel. It looks for vanished peers after a second of silence.
func (p *pair) start(tunnel sidecar.Tunnel) *side {
	p.t.Helper()
	ctx, stop := context.WithCancel(p.t.Context())
	s := &side{log: newJournal(), stop: stop, ended: make(chan error, 1)}
	bound := make(chan string, 1)
	tunnel.Listen, tunnel.ConnectTimeout = "127.0.0.1:0", patience
	tunnel.KeepAlive = net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 3}
	run, err := sidecar.New(sidecar.Config{
		Tunnels: []sidecar.Tunnel{tunnel}, ShutdownTimeout: limit, Log: slog.New(s.log),
		Ready: func(a sidecar.Addrs) { bound <- a.Tunnels[tunnel.Name].String() },
	})
	if err != nil {
		p.t.Fatal(err)
	}
	go func() { s.ended <- run.Run(ctx) }()
	p.t.Cleanup(stop)
	select {
	case s.addr = <-bound:
	case err := <-s.ended:
		p.t.Fatal(err)
	}
	return s
}

// close ends both sidecars, which have nothing open any more.
func (p *pair) close() {
	p.t.Helper()
	for _, s := range []*side{p.client, p.server} {
		s.stop()
		select {
		case err := <-s.ended:
			if err != nil {
				p.t.Error(err)
			}
		case <-time.After(limit):
			p.t.Fatal("a sidecar does not end")
		}
	}
	for _, agent := range p.agents {
		agent.Stop()
	}
}

// rotate gives both sidecars a new identity.
func (p *pair) rotate() {
	for id, agent := range p.agents {
		agent.Set(p.t, []*x509svid.SVID{p.ca.SVID(p.t, id)}, p.ca.Bundle())
	}
}

// killAgents ends the agents, with all their streams, and starts them again after a while.
func (p *pair) killAgents(away time.Duration) {
	for _, agent := range p.agents {
		agent.Stop()
	}
	<-time.After(away) // how long they are away is the fault
	for _, agent := range p.agents {
		agent.Start(p.t)
	}
}

// journal counts the records of connections by their client's address and by cause, and keeps nothing else, so that
// it weighs little in a measurement of memory.
type journal struct {
	mu      sync.Mutex
	clients map[string]int
	causes  map[string]int
	total   int
	news    chan struct{} // closed and replaced at each record
}

func newJournal() *journal {
	return &journal{clients: map[string]int{}, causes: map[string]int{}, news: make(chan struct{})}
}

// Enabled implements slog.Handler.
func (j *journal) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (j *journal) Handle(_ context.Context, r slog.Record) error {
	if r.Message != "connection" {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "client":
			j.clients[a.Value.String()]++
		case "cause":
			j.causes[a.Value.String()]++
		}
		return true
	})
	j.total++
	close(j.news)
	j.news = make(chan struct{})
	return nil
}

// WithAttrs implements slog.Handler; what a logger always says is of no interest here.
func (j *journal) WithAttrs([]slog.Attr) slog.Handler { return j }

// WithGroup implements slog.Handler.
func (j *journal) WithGroup(string) slog.Handler { return j }

// await returns once there are n records, or with false when they don't come.
func (j *journal) await(n int) bool {
	timeout := time.After(limit)
	for {
		j.mu.Lock()
		total, news := j.total, j.news
		j.mu.Unlock()
		if total >= n {
			return true
		}
		select {
		case <-news:
		case <-timeout:
			return false
		}
	}
}
