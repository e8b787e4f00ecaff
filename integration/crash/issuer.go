package crash

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

const trustDomain = "crash.test"

// place is a directory with an issuer's configuration and state.
type place struct {
	dir  string // short: the socket is in it
	bin  string
	addr string
}

// newPlace writes a configuration in dir.
func newPlace(dir, bin string) (*place, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &place{dir: dir, bin: bin, addr: l.Addr().String()}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		return nil, err
	}
	conf := "server {\n  trust_domain = " + strconv.Quote(trustDomain) + "\n  bind_address = \"127.0.0.1\"\n  bind_port = " + strconv.Itoa(port) +
		"\n  socket_path = " + strconv.Quote(p.socket()) + "\n  data_dir = " + strconv.Quote(p.data()) + "\n  log_level = \"WARN\"\n}\n"
	return p, os.WriteFile(p.conf(), []byte(conf), 0o600)
}

func (p *place) conf() string   { return filepath.Join(p.dir, "issuer.conf") }
func (p *place) socket() string { return filepath.Join(p.dir, "s", "api.sock") }
func (p *place) data() string   { return filepath.Join(p.dir, "data") }

// command is the issuer's, behind the words that come before it.
func (p *place) command(before ...string) *exec.Cmd {
	words := append(before, filepath.Join(p.bin, "lanyard-issuer"), "run", "-config", p.conf())
	return exec.Command(words[0], words[1:]...)
}

// running is an issuer and the connection to its admin socket.
type running struct {
	*harness.Process
	admin *grpc.ClientConn
}

// start starts the issuer and waits until it is healthy, or has ended: then the connection is nil.
func (p *place) start(ctx context.Context, cmd *exec.Cmd) (*running, error) {
	// One that is left of an issuer that was killed would be taken for the new one's.
	if err := os.Remove(p.socket()); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	process, err := harness.Start("issuer", cmd)
	if err != nil {
		return nil, err
	}
	admin, err := grpc.NewClient("unix://"+p.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		process.Kill()
		return nil, err
	}
	r := &running{process, admin}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		if info, err := os.Stat(p.socket()); err == nil && info.Mode()&fs.ModeSocket != 0 {
			admin.ResetConnectBackoff()
			resp, err := grpc_health_v1.NewHealthClient(admin).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
			if err == nil && resp.GetStatus() == grpc_health_v1.HealthCheckResponse_SERVING {
				return r, nil
			}
		}
		select {
		case <-process.Done():
			admin.Close()
			r.admin = nil
			return r, nil
		case <-ctx.Done():
			r.end()
			return nil, fmt.Errorf("the issuer is not healthy: %w\n%s", ctx.Err(), process.Log.Tail(20))
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (r *running) end() {
	if r.admin != nil {
		r.admin.Close()
	}
	r.Kill()
}
