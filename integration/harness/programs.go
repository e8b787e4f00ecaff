package harness

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Sidecar is a running `lanyard sidecar`.
type Sidecar struct {
	*Process
	Listen string
	Status string // host:port of its status server

	stage  *Stage
	probes int
}

// Probed says that so many tunnels to this sidecar were ready when their status was asked for, which they know by a
// handshake with it. It waits until these have left their records, and sets them apart from those of the test's own
// connections. A sidecar on a JSON log only.
func (side *Sidecar) Probed(n int) {
	s := side.stage
	s.Helper()
	s.Until(startLimit, side.Name+" to record the probes", func(context.Context) error {
		done := 0
		records := side.Logged("connection")
		for _, record := range records {
			if rule, _ := record["rule"].(string); rule != "" { // others were refused
				done++
			}
		}
		if side.probes = len(records); done < n {
			return fmt.Errorf("%d of %d", done, n)
		}
		return nil
	})
}

// Probes is how many records of connections, the first ones, are of probes.
func (side *Sidecar) Probes() int { return side.probes }

// SidecarSpec says how a sidecar runs. Its binary is the sidecar alone, at a path of its own (see Stage.Copy).
type SidecarSpec struct {
	Name, Binary   string
	Mode           string // server or client
	Listen         string // a free address if empty
	Target         string
	WorkloadAPI    string   // where the identity comes from, unless Args say so
	Args           []string // rules and the rest
	NotReadyIsFine bool     // do not wait until it has an identity
}

// Sidecar starts one and waits until it is ready.
func (s *Stage) Sidecar(spec SidecarSpec) *Sidecar {
	s.Helper()
	side := &Sidecar{Listen: cmp.Or(spec.Listen, s.Addr()), Status: s.Addr(), stage: s}
	args := []string{spec.Mode, "--listen", side.Listen, "--target", spec.Target, "--status", "http://" + side.Status}
	if spec.WorkloadAPI != "" {
		args = append(args, "--use-workload-api-addr", spec.WorkloadAPI)
	}
	side.Process = s.Start(spec.Name, spec.Binary, append(args, spec.Args...)...)
	ready := answers("http://" + side.Status + "/_status")
	if spec.NotReadyIsFine {
		ready = accepts(side.Listen)
	}
	if err := side.ready(s.Context(), startLimit, ready); err != nil {
		s.Fatalf("%v", err)
	}
	return side
}

// SidecarOn starts `lanyard sidecar run` on a configuration file, and waits until it is ready. The file tells it to serve
// its status at http:// and the address given.
func (s *Stage) SidecarOn(name, binary, file, status string) *Sidecar {
	s.Helper()
	side := &Sidecar{Status: status, stage: s, Process: s.Start(name, binary, "run", "-config", file)}
	if err := side.ready(s.Context(), startLimit, answers("http://"+status+"/_status")); err != nil {
		s.Fatalf("%v", err)
	}
	return side
}

// SidecarBinary is the sidecar alone.
func (s *Stage) SidecarBinary() string { return filepath.Join(s.Bin, "lanyard-sidecar") }

// SDS starts `lanyard sds run` over a Workload API and returns the socket it serves.
func (s *Stage) SDS(name, binary, workloadAPI string) string {
	s.Helper()
	socket := s.Path(name, "sds.sock")
	p := s.Start(name, binary, "run", "--listen", "unix:"+socket, "--use-workload-api-addr", workloadAPI)
	err := p.ready(s.Context(), startLimit, func(context.Context) error {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	if err != nil {
		s.Fatalf("%v", err)
	}
	return socket
}

// WebServer starts `python3 -m http.server` over a folder whose index.html holds the text; it returns its address.
func (s *Stage) WebServer(text string) string {
	s.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		s.Fatalf("%v", err)
	}
	addr := s.Addr()
	host, port, _ := strings.Cut(addr, ":")
	dir := filepath.Dir(s.WriteFile("www/index.html", text))
	p := s.Start("http.server", python, "-u", "-m", "http.server", "--protocol", "HTTP/1.1", "--bind", host, "--directory", dir, port)
	if err := p.ready(s.Context(), startLimit, accepts(addr)); err != nil {
		s.Fatalf("%v", err)
	}
	return addr
}

// Peer is the path of a real binary in $LANYARD_PEERS; empty if it is not there.
func Peer(name string) string {
	dir := os.Getenv("LANYARD_PEERS")
	if dir == "" {
		return ""
	}
	path, err := exec.LookPath(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return path
}
