package sidecar

import (
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/metrics"
	"github.com/lanyard-mtls/lanyard/sidecar/policy"
	"github.com/lanyard-mtls/lanyard/sidecar/setting"
)

func serverTunnel() Tunnel {
	return Tunnel{Name: "in", Mode: Server, Listen: ":8443", Target: "127.0.0.1:80", Identity: identity.Config{WorkloadAPI: "unix:///a.sock"},
		Policy: policy.Config{AllowAll: true}}
}

func clientTunnel() Tunnel {
	return Tunnel{Name: "out", Mode: Client, Listen: "localhost:8080", Target: "db.example:8443", Identity: identity.Config{WorkloadAPI: "unix:///a.sock"},
		Policy: policy.Config{OwnTrustDomain: true}}
}

func TestTunnelValidate(t *testing.T) {
	tests := map[string]struct {
		base   Tunnel
		change func(*Tunnel)
		want   string // empty: valid
	}{
		"server":              {serverTunnel(), func(*Tunnel) {}, ""},
		"client":              {clientTunnel(), func(*Tunnel) {}, ""},
		"server unix":         {serverTunnel(), func(c *Tunnel) { c.Listen, c.Target = "unix:/l", "unix:/t" }, ""},
		"server systemd":      {serverTunnel(), func(c *Tunnel) { c.Listen = "systemd:x" }, ""},
		"server rules":        {serverTunnel(), func(c *Tunnel) { c.Policy = policy.Config{AllowURIs: []string{"spiffe://td/**"}} }, ""},
		"server pins":         {serverTunnel(), func(c *Tunnel) { c.Policy, c.Identity = pins(), files() }, ""},
		"named port":          {clientTunnel(), func(c *Tunnel) { c.Target = "db:https" }, ""},
		"unsafe target":       {serverTunnel(), func(c *Tunnel) { c.Target, c.UnsafeTarget = "10.0.0.1:80", true }, ""},
		"unsafe listen":       {clientTunnel(), func(c *Tunnel) { c.Listen, c.UnsafeListen = "0.0.0.0:80", true }, ""},
		"no direction":        {serverTunnel(), func(c *Tunnel) { c.Mode = "" }, `direction: give "inbound" or "outbound"`},
		"no listen":           {serverTunnel(), func(c *Tunnel) { c.Listen = "" }, "listen: is missing"},
		"no target":           {clientTunnel(), func(c *Tunnel) { c.Target = "" }, "target: is missing"},
		"no port":             {clientTunnel(), func(c *Tunnel) { c.Target = "db" }, "target db: not an address"},
		"target from systemd": {serverTunnel(), func(c *Tunnel) { c.Target = "systemd:x" }, "target systemd:x: can be listened on only"},
		"remote target":       {serverTunnel(), func(c *Tunnel) { c.Target = "10.0.0.1:80" }, "target 10.0.0.1:80: plaintext would leave this machine: use 127.0.0.1:PORT, [::1]:PORT, localhost:PORT or unix:PATH, or set unsafe_target"},
		"another loopback":    {serverTunnel(), func(c *Tunnel) { c.Target = "127.0.0.2:80" }, "unsafe_target"},
		"capitals":            {serverTunnel(), func(c *Tunnel) { c.Target = "LOCALHOST:80" }, "unsafe_target"},
		"open listen":         {clientTunnel(), func(c *Tunnel) { c.Listen = ":80" }, "unsafe_listen"},
		"target port 0":       {serverTunnel(), func(c *Tunnel) { c.Target = "127.0.0.1:0" }, "target 127.0.0.1:0: nobody can be reached at port 0"},
		"nobody to verify":    {clientTunnel(), func(c *Tunnel) { c.Target, c.Identity = ":8443", files() }, "target :8443: has no host that the server's certificate could be for"},
		"a name to verify": {clientTunnel(), func(c *Tunnel) {
			c.Target, c.Identity, c.ServerName, c.Policy = ":8443", files(), "db", policy.Config{}
		}, ""},
		"abstract listen":             {clientTunnel(), func(c *Tunnel) { c.Listen = "unix:@x" }, "listen unix:@x: abstract sockets have no mode"},
		"client to unix":              {clientTunnel(), func(c *Tunnel) { c.Target = "unix:/x" }, "target unix:/x: a client's target is HOST:PORT"},
		"nobody allowed":              {serverTunnel(), func(c *Tunnel) { c.Policy.AllowAll = false }, "allow_all"},
		"pins and Workload API":       {serverTunnel(), func(c *Tunnel) { c.Policy = pins() }, "pins"},
		"negative connect":            {clientTunnel(), func(c *Tunnel) { c.ConnectTimeout = -time.Second }, "connect_timeout -1s: must be more than 0"},
		"negative limit":              {clientTunnel(), func(c *Tunnel) { c.Limits.PerPeer = -1 }, "per_peer -1: must be at least 1"},
		"no identity source":          {clientTunnel(), func(c *Tunnel) { c.Identity = identity.Config{} }, "identity"},
		"server without certificate":  {serverTunnel(), func(c *Tunnel) { c.Identity = identity.Config{None: true} }, "a server needs a certificate"},
		"bare trust domain":           {clientTunnel(), func(c *Tunnel) { c.Identity.SPIFFEID = spiffeid.RequireFromString("spiffe://td") }, "names a trust domain"},
		"protocol without name":       {serverTunnel(), func(c *Tunnel) { c.ALPN = []string{"h2", ""} }, `alpn "": a protocol has 1 to 255 bytes`},
		"TLS 1.1":                     {serverTunnel(), func(c *Tunnel) { c.MaxTLSVersion = tls.VersionTLS11 }, "max_version TLS 1.1: give TLS1.2 or TLS1.3"},
		"server with a proxy":         {serverTunnel(), func(c *Tunnel) { c.Via = "http://proxy" }, "via: belongs to an outbound tunnel"},
		"client with a PROXY header":  {clientTunnel(), func(c *Tunnel) { c.ProxyProtocol = "conn" }, "proxy_protocol: belongs to an inbound tunnel"},
		"client behind a balancer":    {clientTunnel(), func(c *Tunnel) { c.AcceptProxyProtocol = []string{"10.0.0.0/8"} }, "accept_proxy_protocol: belongs to an inbound tunnel"},
		"target status is no URL":     {serverTunnel(), func(c *Tunnel) { c.TargetStatus = "ftp://x" }, "target_status ftp://x: not a URL"},
		"balancers that are no CIDRs": {serverTunnel(), func(c *Tunnel) { c.AcceptProxyProtocol = []string{"x"} }, "accept_proxy_protocol x"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tunnel := tt.base
			tt.change(&tunnel)
			err := Config{Tunnels: []Tunnel{tunnel}}.Validate()
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tt.want != "" && err == nil:
				t.Error("accepted")
			case tt.want != "" && (!strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n")):
				t.Errorf("%q, want one line with %q", err, tt.want)
			}
			for _, err := range setting.All(err) {
				if e, ok := err.(*setting.Error); !ok || e.Tunnel != tunnel.Name || e.Key == "" {
					t.Errorf("%#v names no tunnel and setting", err)
				}
			}
		})
	}
}

func pins() policy.Config {
	return policy.Config{Pins: []string{"sha256:" + strings.Repeat("A", 43) + "="}}
}

func files() identity.Config { return identity.Config{Cert: "/c", Key: "/k"} }

func TestConfigValidate(t *testing.T) {
	two := func(change func(a, b *Tunnel)) []Tunnel {
		a, b := serverTunnel(), clientTunnel()
		change(&a, &b)
		return []Tunnel{a, b}
	}
	tests := map[string]struct {
		cfg  Config
		want string
	}{
		"no tunnel":           {Config{}, "tunnel: there is none"},
		"same name":           {Config{Tunnels: two(func(a, b *Tunnel) { b.Name = a.Name })}, "is there twice"},
		"same address":        {Config{Tunnels: two(func(a, b *Tunnel) { b.Listen, b.UnsafeListen = a.Listen, true })}, `listen :8443: is the address of tunnel "in" too`},
		"status on a tunnel":  {Config{Tunnels: two(func(*Tunnel, *Tunnel) {}), Status: Status{Listen: "http://localhost:8080"}}, "is the address of status too"},
		"pprof nowhere":       {Config{Tunnels: two(func(*Tunnel, *Tunnel) {}), Status: Status{PProf: true}}, "pprof: needs a status address"},
		"shutdown nowhere":    {Config{Tunnels: two(func(*Tunnel, *Tunnel) {}), Status: Status{Shutdown: true}}, "shutdown: needs a status address"},
		"status nonsense":     {Config{Tunnels: two(func(*Tunnel, *Tunnel) {}), Status: Status{Listen: "here"}}, "status here: not an address"},
		"status abstract":     {Config{Tunnels: two(func(*Tunnel, *Tunnel) {}), Status: Status{Listen: "unix:@x"}}, "status unix:@x: abstract sockets"},
		"status without cert": {Config{Tunnels: anonymous(), Status: Status{Listen: "https://:1"}}, "status https://:1: needs a certificate"},
		"scheme on a socket":  {Config{Tunnels: two(func(*Tunnel, *Tunnel) {}), Status: Status{Listen: "http://unix:/x"}}, "a scheme goes with HOST:PORT only"},
		"negative shutdown":   {Config{Tunnels: two(func(*Tunnel, *Tunnel) {}), ShutdownTimeout: -1}, "shutdown_timeout -1ns: must be more than 0"},
		"metrics to no URL":   {Config{Tunnels: two(func(*Tunnel, *Tunnel) {}), Metrics: metricsTo("nowhere")}, "nowhere"},
		"identity comes late": {Config{Tunnels: two(func(*Tunnel, *Tunnel) {}), IdentityTimeout: -1}, "identity_timeout -1ns"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := tt.cfg.Validate()
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v, want one line with %q", err, tt.want)
			}
		})
	}
	t.Run("all at once", func(t *testing.T) {
		err := Config{Tunnels: two(func(a, b *Tunnel) { a.Target, b.Target, b.Listen = "", "", "" })}.Validate()
		if n := len(setting.All(err)); n != 3 {
			t.Errorf("%d errors: %v", n, err)
		}
	})
}

// What is in use is named, and nothing stays bound.
func TestRunRefusesWhatIsInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir, err := os.MkdirTemp("", "ly")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	listen := filepath.Join(dir, "listen")
	tests := map[string]struct {
		change func(*Config)
		want   string
	}{
		"port":           {func(c *Config) { c.Tunnels[0].Listen = l.Addr().String() }, "already in use"},
		"status port":    {func(c *Config) { c.Status.Listen = "http://" + l.Addr().String() }, "already in use"},
		"no socket":      {func(c *Config) { c.Status.Listen = "unix:" + file }, "not a socket"},
		"no interface":   {func(c *Config) { c.Tunnels[0].Listen = "192.0.2.1:0" }, "no interface of this machine has that address"},
		"no name":        {func(c *Config) { c.Tunnels[0].Listen = "nowhere.invalid:1" }, "give an address or a name that resolves"},
		"no directory":   {func(c *Config) { c.Tunnels[0].Listen = "unix:" + file + "/x" }, "not a directory"},
		"no unit":        {func(c *Config) { c.Tunnels[0].Listen = "systemd:x" }, "systemd handed no socket over"},
		"no such target": {func(c *Config) { c.Tunnels[0].Target, c.Tunnels[0].UnsafeTarget = "nowhere.invalid:1", true }, "can't be resolved"},
		"no such port":   {func(c *Config) { c.Tunnels[0].Target = "127.0.0.1:nosuchservice" }, "its port is not in /etc/services"},
		"no files":       {func(c *Config) { c.Tunnels[0].Identity = identity.Config{Cert: file + ".pem", Key: file} }, "no such file"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			cfg := Config{Tunnels: []Tunnel{serverTunnel()}, Ready: func(Addrs) { t.Error("called Ready") }}
			cfg.Tunnels[0].Listen = "unix:" + listen
			tt.change(&cfg)
			s, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			err = s.Run(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			for _, err := range setting.All(err) {
				if _, ok := err.(*setting.Error); !ok {
					t.Errorf("%v is about no setting", err)
				}
			}
			if _, err := os.Stat(listen); !os.IsNotExist(err) {
				t.Errorf("left %s behind: %v", listen, err)
			}
		})
	}
}

// anonymous is a tunnel that has nothing to show on the status port.
func anonymous() []Tunnel {
	t := clientTunnel()
	t.Identity.None = true
	return []Tunnel{t}
}

func metricsTo(url string) metrics.Config { return metrics.Config{URL: url} }
