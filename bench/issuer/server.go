package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/lanyard-mtls/lanyard/bench/proc"
)

const trustDomain = "bench.test"

// kind is one program to measure.
type kind struct {
	name, path string
	spire      bool
}

// server is a running issuer with its files in a directory of its own.
type server struct {
	kind
	dir     string
	address string
	cmd     *exec.Cmd
	ended   chan error
	admin   *grpc.ClientConn
}

// newServer writes the configuration and starts nothing.
func newServer(k kind) (*server, error) {
	dir, err := os.MkdirTemp("", "lybench")
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{kind: k, dir: dir, address: l.Addr().String()}
	if err := l.Close(); err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(s.address)
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	conf := fmt.Sprintf(`server {
  trust_domain = %q
  bind_address = "127.0.0.1"
  bind_port    = %d
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
`, trustDomain, number, s.socket(), s.data(), filepath.Join(s.data(), "keys.json"))
	if k.spire {
		conf += fmt.Sprintf("  DataStore \"sql\" { plugin_data { database_type = \"sqlite3\" connection_string = %q } }\n", filepath.Join(dir, "db.sqlite3"))
	}
	return s, os.WriteFile(s.conf(), []byte(conf+"}\n"), 0o600)
}

func (s *server) conf() string   { return filepath.Join(s.dir, "server.conf") }
func (s *server) socket() string { return filepath.Join(s.dir, "s", "api.sock") }
func (s *server) data() string   { return filepath.Join(s.dir, "data") }

// start starts the issuer and returns when it says that it is healthy, and how long that took.
func (s *server) start(ctx context.Context) (time.Duration, error) {
	if err := os.MkdirAll(s.data(), 0o700); err != nil {
		return 0, err
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	s.cmd = exec.Command(s.path, "run", "-config", s.conf())
	s.cmd.Stdout, s.cmd.Stderr = log, log
	begin := time.Now()
	if err := s.cmd.Start(); err != nil {
		s.cmd = nil
		return 0, err
	}
	s.ended = make(chan error, 1)
	go func(cmd *exec.Cmd, ended chan error) { ended <- cmd.Wait() }(s.cmd, s.ended)
	if s.admin, err = grpc.NewClient("unix://"+s.socket(), grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		return 0, err
	}
	for time.Since(begin) < time.Minute {
		select {
		case err := <-s.ended:
			text, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			return 0, fmt.Errorf("ended while it started: %w\n%s", err, text)
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
		if _, err := os.Stat(s.socket()); err != nil {
			continue
		}
		s.admin.ResetConnectBackoff()
		resp, err := grpc_health_v1.NewHealthClient(s.admin).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		if err == nil && resp.GetStatus() == grpc_health_v1.HealthCheckResponse_SERVING {
			return time.Since(begin), nil
		}
	}
	return 0, fmt.Errorf("is not healthy after a minute; its log is %s", filepath.Join(s.dir, "log"))
}

// stop ends the issuer and waits for it.
func (s *server) stop() error {
	if s.admin != nil {
		s.admin.Close()
		s.admin = nil
	}
	if s.cmd == nil {
		return nil
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-s.ended:
	case <-time.After(30 * time.Second):
		if err := s.cmd.Process.Kill(); err != nil {
			return err
		}
		<-s.ended
	}
	s.cmd = nil
	return nil
}

func (s *server) cpu() (time.Duration, error) { return proc.CPU([]int{s.cmd.Process.Pid}) }

func (s *server) resident() (proc.Memory, error) { return proc.Resident([]int{s.cmd.Process.Pid}) }
