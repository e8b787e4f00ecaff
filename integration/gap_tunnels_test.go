package integration

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// tunnel is one block of a sidecar's file.
type tunnel struct {
	name, direction, listen, target, own, peer string
	more                                       string // lines of HCL
}

// file is a sidecar's configuration of such tunnels, with identities from files.
func (s svids) file(status string, tunnels ...tunnel) string {
	s.Helper()
	var text strings.Builder
	fmt.Fprintf(&text, "log_format = \"json\"\nstatus {\n  listen = %q\n}\n", "http://"+status)
	for _, t := range tunnels {
		files := s.issue(t.own)
		fmt.Fprintf(&text, `tunnel %q {
  direction = %q
  listen    = %q
  target    = %q
  identity {
    cert = %q
    key  = %q
    trust_bundle %q {
      file = %q
    }
  }
  policy {
    allow_uris = [%q]
  }
  %s
}
`, t.name, t.direction, t.listen, t.target, files.Cert, files.Key, filesDomain, s.ca.JWKS, s.id(t.peer), t.more)
	}
	return text.String()
}

// runFile starts a sidecar on a file, and waits until it is ready.
func (s svids) runFile(name, status, text string) (side *harness.Sidecar, path string) {
	s.Helper()
	path = s.WriteFile(name+".hcl", text)
	return s.SidecarOn(name, s.SidecarBinary(), path, status), path
}

// Gap 14: a ghostunnel has one listener, one target and one rule set.
func TestGap14ManyTunnelsInOneProcess(t *testing.T) {
	t.Parallel()
	s := newSVIDs(t)
	const services = 20
	var all []tunnel
	for n := range services {
		name := fmt.Sprintf("service%d", n)
		answers := serveText(t, name)
		in := tunnel{name: name, direction: "inbound", listen: s.Addr(), target: answers, own: name, peer: "user-of-" + name}
		out := tunnel{name: "to-" + name, direction: "outbound", listen: "unix:" + s.Path("out", name), target: in.listen, own: in.peer, peer: name}
		all = append(all, in, out)
	}
	status := s.Addr()
	side, _ := s.runFile("many", status, s.file(status, all...))
	side.Probed(services)
	for n := range services {
		name := fmt.Sprintf("service%d", n)
		if got, err := readUnix(s.Path("out", name)); err != nil || got != name {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		// One's client is none of the other's.
		config := s.tls(t, fmt.Sprintf("user-of-service%d", (n+1)%services))
		config.VerifyPeerCertificate, config.InsecureSkipVerify = nil, true // whoever it is
		conn, err := tls.Dial("tcp", all[2*n].listen, config)
		if err == nil {
			_, err = conn.Read(make([]byte, 1)) // a TLS 1.3 client is refused only now
			conn.Close()
		}
		if err == nil {
			t.Errorf("%s took the client of another", name)
		}
	}
	records := connections(t, side, 3*services)
	tunnels := map[any]int{}
	for _, record := range records {
		tunnels[fmt.Sprint(record["tunnel"], " ", record["cause"])]++
	}
	for n := range services {
		for key, want := range map[string]int{"service%d closed": 1, "service%d refused": 1, "to-service%d closed": 1} {
			if key = fmt.Sprintf(key, n); tunnels[key] != want {
				t.Errorf("%d records %q, want %d", tunnels[key], key, want)
			}
		}
	}
}

// Gap 15: to change a rule, ghostunnel is restarted.
func TestGap15ReloadsItsConfigurationLive(t *testing.T) {
	t.Parallel()
	s := newSVIDs(t)
	status, target := s.Addr(), echo(t)
	stays := tunnel{name: "stays", direction: "inbound", listen: s.Addr(), target: target, own: "server", peer: "client"}
	goes := tunnel{name: "goes", direction: "inbound", listen: s.Addr(), target: target, own: "server", peer: "client"}
	comes := tunnel{name: "comes", direction: "inbound", listen: s.Addr(), target: target, own: "server", peer: "client"}
	side, path := s.runFile("live", status, s.file(status, stays, goes))
	kept := s.dial(t, stays, "client")
	keptOfGone := s.dial(t, goes, "client")

	stays.peer = "another"
	s.replace(path, s.file(status, stays, comes))
	if err := syscall.Kill(side.PID(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	s.Until(fetchLimit, "the new configuration", func(context.Context) error {
		return errors.Join(s.try(t, comes, "client"), s.try(t, stays, "another"))
	})
	if err := s.try(t, stays, "client"); err == nil {
		t.Error("who was taken out of the policy is let in")
	}
	if err := s.try(t, goes, "client"); err == nil {
		t.Error("a tunnel that is gone takes connections")
	}
	exchange(t, kept, "on a connection of before")
	exchange(t, keptOfGone, "on one of a tunnel that is gone")

	t.Run("not a wrong one", func(t *testing.T) {
		wrong := stays
		wrong.more = "alpm = [\"h2\"]" // a key that nobody knows
		s.replace(path, s.file(status, wrong, goes))
		if err := syscall.Kill(side.PID(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		if line, err := side.WaitFor(t.Context(), "alpm"); err != nil || !strings.Contains(line, "live.hcl:") || !strings.Contains(line, "alpn") {
			t.Errorf("what it says of a wrong file: %s, %v", line, err)
		}
		if err := errors.Join(s.try(t, comes, "client"), s.try(t, stays, "another")); err != nil {
			t.Errorf("the configuration of before is not in use: %v", err)
		}
		exchange(t, kept, "after a wrong file")
	})
	t.Run("without a signal", func(t *testing.T) {
		stays.peer = "third"
		s.replace(path, s.file(status, stays, comes))
		s.Until(fetchLimit, "the changed file", func(context.Context) error { return s.try(t, stays, "third") })
		exchange(t, kept, "after it all")
	})
}

// replace puts a new file in the place of one, as editors and kubelets do.
func (s svids) replace(path, text string) {
	s.Helper()
	if err := errors.Join(os.WriteFile(path+".new", []byte(text), 0o600), os.Rename(path+".new", path)); err != nil {
		s.Fatalf("%v", err)
	}
}

// dial is a connection through a tunnel's front, as a stock client that is name.
func (s svids) dial(t *testing.T, to tunnel, name string) *tls.Conn {
	t.Helper()
	conn, err := tls.Dial("tcp", to.listen, s.tls(t, name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	exchange(t, conn, "hello")
	return conn
}

// try tells whether a client that is name is served.
func (s svids) try(t *testing.T, to tunnel, name string) error {
	t.Helper()
	conn, err := tls.Dial("tcp", to.listen, s.tls(t, name))
	if err != nil {
		return err
	}
	defer conn.Close()
	return tryExchange(conn, "hello")
}
