package main

import (
	"context"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
)

const trustDomain = "bench.test"

// programs are the running issuer and agent, with their files in a directory of their own.
type programs struct {
	pair
	dir, port     string
	issuer, agent *program
	admin         *grpc.ClientConn
}

// program is one of them.
type program struct {
	cmd   *exec.Cmd
	ended chan error
	log   string
}

// startPrograms starts an issuer on a fresh state, and an agent that joins it.
func startPrograms(ctx context.Context, p pair) (*programs, error) {
	dir, err := os.MkdirTemp("", "lybench")
	if err == nil {
		err = os.Chmod(dir, 0o755) // workloads of other users reach the socket below
	}
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &programs{pair: p, dir: dir}
	_, r.port, _ = net.SplitHostPort(l.Addr().String())
	if err := l.Close(); err != nil {
		return nil, err
	}
	if err := r.startIssuer(ctx); err != nil {
		return r, err
	}
	token, err := agentv1.NewAgentClient(r.admin).CreateJoinToken(ctx, &agentv1.CreateJoinTokenRequest{
		Ttl: 600, AgentId: id("/node")})
	if err != nil {
		return r, err
	}
	if err := r.writeBundle(ctx); err != nil {
		return r, err
	}
	return r, r.startAgent(ctx, "-joinToken", token.GetValue())
}

func (r *programs) path(elem ...string) string {
	return filepath.Join(append([]string{r.dir}, elem...)...)
}

// socket is the Workload API's.
func (r *programs) socket() string { return r.path("agent", "api.sock") }

func (r *programs) startIssuer(ctx context.Context) (err error) {
	sql := ""
	if r.sql {
		sql = fmt.Sprintf("  DataStore \"sql\" { plugin_data { database_type = \"sqlite3\" connection_string = %q } }\n", r.path("db.sqlite3"))
	}
	conf := fmt.Sprintf(`server {
  trust_domain = %q
  bind_address = "127.0.0.1"
  bind_port    = %s
  socket_path  = %q
  data_dir     = %q
  log_level    = "WARN"
  ratelimit {
    attestation = false
    signing     = false
  }
}
plugins {
  KeyManager "disk" { plugin_data { keys_path = %q } }
  NodeAttestor "join_token" { plugin_data {} }
%s}
`, trustDomain, r.port, r.path("issuer", "api.sock"), r.path("issuer-data"), r.path("issuer-data", "keys.json"), sql)
	if err := os.MkdirAll(r.path("issuer-data"), 0o700); err != nil {
		return err
	}
	if r.issuer, err = r.launch("issuer", r.issuerPath, conf); err != nil {
		return err
	}
	r.admin, err = r.healthy(ctx, r.issuer, r.path("issuer", "api.sock"))
	return err
}

// writeBundle puts the issuer's bundle where the agent reads it.
func (r *programs) writeBundle(ctx context.Context) error {
	bundle, err := bundlev1.NewBundleClient(r.admin).GetBundle(ctx, &bundlev1.GetBundleRequest{})
	if err != nil {
		return err
	}
	var text []byte
	for _, a := range bundle.GetX509Authorities() {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.GetAsn1()})...)
	}
	return os.WriteFile(r.path("bundle.pem"), text, 0o600)
}

// startAgent starts the agent, all but its log level and places as it comes.
func (r *programs) startAgent(ctx context.Context, args ...string) (err error) {
	conf := fmt.Sprintf(`agent {
  trust_domain      = %q
  server_address    = "127.0.0.1"
  server_port       = %s
  socket_path       = %q
  data_dir          = %q
  trust_bundle_path = %q
  log_level         = "WARN"
}
plugins {
  KeyManager "disk" { plugin_data { directory = %q } }
  NodeAttestor "join_token" { plugin_data {} }
  WorkloadAttestor "unix" { plugin_data {} }
}
`, trustDomain, r.port, r.socket(), r.path("agent-data"), r.path("bundle.pem"), r.path("agent-data"))
	if r.agent, err = r.launch("agent", r.agentPath, conf, args...); err != nil {
		return err
	}
	conn, err := r.healthy(ctx, r.agent, r.socket())
	if err != nil {
		return err
	}
	return conn.Close()
}

func (r *programs) launch(name, path, conf string, args ...string) (*program, error) {
	file := r.path(name + ".conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		return nil, err
	}
	p := &program{log: r.path(name + ".log"), ended: make(chan error, 1)}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd = exec.Command(path, append([]string{"run", "-config", file}, args...)...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { p.ended <- p.cmd.Wait() }()
	return p, nil
}

// healthy waits for a program's health check, and returns the connection that it was made over.
func (r *programs) healthy(ctx context.Context, p *program, socket string) (*grpc.ClientConn, error) {
	begin := time.Now()
	for time.Since(begin) < time.Minute {
		select {
		case err := <-p.ended:
			text, _ := os.ReadFile(p.log)
			return nil, fmt.Errorf("%s ended while it started: %v\n%s", p.cmd.Path, err, text)
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
		if _, err := os.Stat(socket); err != nil {
			continue
		}
		conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, err
		}
		resp, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		if err == nil && resp.GetStatus() == grpc_health_v1.HealthCheckResponse_SERVING {
			return conn, nil
		}
		conn.Close()
	}
	return nil, fmt.Errorf("%s is not healthy after a minute; its log is %s", p.cmd.Path, p.log)
}

func (p *program) pid() int { return p.cmd.Process.Pid }

// stop ends a program and waits for it.
func (p *program) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.ended:
		return nil
	case <-time.After(30 * time.Second):
		err := p.cmd.Process.Kill()
		<-p.ended
		return err
	}
}

// stop ends both.
func (r *programs) stop() {
	if r.admin != nil {
		r.admin.Close()
	}
	for _, p := range []*program{r.agent, r.issuer} {
		if p != nil {
			_ = p.stop() // it may have ended by itself, which the measurement has told
		}
	}
}
