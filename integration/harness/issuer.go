package harness

import (
	"context"
	"fmt"
	"net"
	"os"
)

// IssuerSpec is an issuer by itself, ours or SPIRE's: both are given the same server.conf, into which the texts are put
// as they are.
type IssuerSpec struct {
	SPIREServer string // path of a real spire-server; ours if empty
	TrustDomain string // lanyard.test if empty
	Server      string // lines of the server block; it has an experimental block already
	Plugins     string // plugin blocks; the data store, the keys on disk and join_token are there already
	Blocks      string // blocks beside server and plugins
}

// Issuer is a running issuer.
type Issuer struct {
	*Stage
	Process     *Process
	TrustDomain string
	Addr        string // host:port of the TCP API
	Socket      string // the admin socket
	Conf        string // its configuration file

	tool Tool
	name string
}

// StartIssuer starts an issuer on a fresh state below the stage, and waits until it is healthy.
func StartIssuer(s *Stage, spec IssuerSpec) *Issuer {
	s.Helper()
	if spec.TrustDomain == "" {
		spec.TrustDomain = "lanyard.test"
	}
	name := s.Unique("issuer")
	i := &Issuer{
		Stage: s, TrustDomain: spec.TrustDomain, Addr: s.Addr(), Socket: s.Path(name, "s", "api.sock"),
		tool: Tool{s.Bin + "/lanyard", []string{"issuer"}}, name: name,
	}
	if spec.SPIREServer != "" {
		i.tool = Tool{Path: spec.SPIREServer}
	}
	i.Conf = s.WriteFile(name+"/server.conf", i.conf(spec))
	i.Start()
	return i
}

func (i *Issuer) conf(spec IssuerSpec) string {
	host, port, err := net.SplitHostPort(i.Addr)
	if err != nil {
		i.Fatalf("%v", err)
	}
	return conf(`server {
  trust_domain = «td»
  bind_address = «host»
  bind_port    = `+port+`
  socket_path  = «socket»
  data_dir     = «data»
  log_level    = "DEBUG"
  experimental {
    cache_reload_interval = "200ms"
  }
`+spec.Server+`
}
plugins {
  DataStore "sql" {
    plugin_data {
      database_type     = "sqlite3"
      connection_string = «db»
    }
  }
  KeyManager "disk" {
    plugin_data {
      keys_path = «keys»
    }
  }
  NodeAttestor "join_token" {
    plugin_data {}
  }
`+spec.Plugins+`
}
`+spec.Blocks, "td", spec.TrustDomain, "host", host, "socket", i.Socket, "data", i.Path(i.name, "data"),
		"db", i.Path(i.name, "server.sqlite3"), "keys", i.Path(i.name, "keys.json"))
}

// Start starts the issuer, again on the same state after it was stopped, and waits until it is healthy.
func (i *Issuer) Start() {
	i.Helper()
	i.Process = i.Stage.Start(i.name, i.tool.Path, i.tool.args("run", "-config", i.Conf)...)
	err := i.Process.ready(i.Context(), startLimit, func(ctx context.Context) error {
		_, err := i.TryAdmin(ctx, "healthcheck")
		return err
	})
	if err != nil {
		i.Fatalf("%v", err)
	}
}

// Restart stops the issuer and starts it again on the same state.
func (i *Issuer) Restart() {
	i.Helper()
	_ = i.Process.Stop(stopGrace)
	if i.Process.Stuck() {
		i.Fatalf("%s did not stop", i.name)
	}
	i.Start()
}

// Admin runs a verb of the issuer's command line on its admin socket.
func (i *Issuer) Admin(args ...string) string {
	i.Helper()
	out, err := i.TryAdmin(i.Context(), args...)
	if err != nil {
		i.Fatalf("%v", err)
	}
	return out
}

// TryAdmin is Admin for where an error is expected.
func (i *Issuer) TryAdmin(ctx context.Context, args ...string) (string, error) {
	return Run(ctx, i.tool.Path, append(i.tool.args(args...), "-socketPath", i.Socket)...)
}

// ID is a SPIFFE ID of the issuer's trust domain.
func (i *Issuer) ID(path string) string { return "spiffe://" + i.TrustDomain + path }

// BundleFile writes the issuer's bundle as PEM, and returns the file's path.
func (i *Issuer) BundleFile() string {
	i.Helper()
	path := i.Path(i.name, "bundle.pem")
	if err := os.WriteFile(path, []byte(i.Admin("bundle", "show")), 0o600); err != nil {
		i.Fatalf("%v", fmt.Errorf("bundle of %s: %w", i.name, err))
	}
	return path
}
