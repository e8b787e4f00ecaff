package sidecar

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

func server() Config {
	return Config{Mode: Server, Listen: ":8443", Target: "127.0.0.1:80", WorkloadAPIAddr: "unix:///a.sock", AllowAll: true}
}

func client() Config {
	return Config{Mode: Client, Listen: "localhost:8080", Target: "db.example:8443", WorkloadAPIAddr: "unix:///a.sock"}
}

func TestValidate(t *testing.T) {
	t.Setenv("SPIFFE_ENDPOINT_SOCKET", "")
	tests := map[string]struct {
		base   Config
		change func(*Config)
		want   string // empty: valid
	}{
		"server":                   {server(), func(*Config) {}, ""},
		"client":                   {client(), func(*Config) {}, ""},
		"server unix":              {server(), func(c *Config) { c.Listen, c.Target = "unix:/l", "unix:/t" }, ""},
		"server rules":             {server(), func(c *Config) { c.AllowAll, c.AllowURIs = false, []string{"spiffe://td/**"} }, ""},
		"named port":               {client(), func(c *Config) { c.Target = "db:https" }, ""},
		"unsafe target":            {server(), func(c *Config) { c.Target, c.UnsafeTarget = "10.0.0.1:80", true }, ""},
		"unsafe listen":            {client(), func(c *Config) { c.Listen, c.UnsafeListen = "0.0.0.0:80", true }, ""},
		"no mode":                  {server(), func(c *Config) { c.Mode = "" }, `mode "": use "server" or "client"`},
		"no listen":                {server(), func(c *Config) { c.Listen = "" }, "--listen is missing"},
		"no target":                {client(), func(c *Config) { c.Target = "" }, "--target is missing"},
		"no port":                  {client(), func(c *Config) { c.Target = "db" }, "--target db: not an address"},
		"bad port":                 {server(), func(c *Config) { c.Listen = "127.0.0.1:99999" }, `--listen 127.0.0.1:99999: "99999" is not a port`},
		"empty port":               {server(), func(c *Config) { c.Listen = "127.0.0.1:" }, `--listen 127.0.0.1:: "" is not a port`},
		"empty path":               {server(), func(c *Config) { c.Listen = "unix:" }, "--listen unix:: the path is missing"},
		"systemd":                  {server(), func(c *Config) { c.Listen = "systemd:x" }, "systemd sockets are not supported"},
		"remote target":            {server(), func(c *Config) { c.Target = "10.0.0.1:80" }, "--target 10.0.0.1:80: plaintext would leave this machine: use 127.0.0.1:PORT, [::1]:PORT, localhost:PORT or unix:PATH, or add --unsafe-target"},
		"another loopback":         {server(), func(c *Config) { c.Target = "127.0.0.2:80" }, "--unsafe-target"},
		"capitals":                 {server(), func(c *Config) { c.Target = "LOCALHOST:80" }, "--unsafe-target"},
		"open listen":              {client(), func(c *Config) { c.Listen = ":80" }, "--unsafe-listen"},
		"client to unix":           {client(), func(c *Config) { c.Target = "unix:/x" }, "--target unix:/x: a client's target is HOST:PORT"},
		"nobody allowed":           {server(), func(c *Config) { c.AllowAll = false }, "give --allow-uri"},
		"all and some":             {server(), func(c *Config) { c.AllowURIs = []string{"a"} }, "--allow-all and --allow-uri exclude each other"},
		"bad rule":                 {server(), func(c *Config) { c.AllowAll, c.AllowURIs = false, []string{"a*"} }, `--allow-uri "a*": * must be a whole segment`},
		"bad expectation":          {client(), func(c *Config) { c.VerifyURIs = []string{"a", ""} }, `--verify-uri "": empty pattern`},
		"verify on server":         {server(), func(c *Config) { c.VerifyURIs = []string{"a"} }, "--verify-uri belongs to client"},
		"allow on client":          {client(), func(c *Config) { c.AllowAll = true }, "--allow-uri and --allow-all belong to server"},
		"negative connect":         {client(), func(c *Config) { c.ConnectTimeout = -time.Second }, "--connect-timeout -1s: must be more than 0"},
		"negative shutdown":        {client(), func(c *Config) { c.ShutdownTimeout = -1 }, "--shutdown-timeout -1ns: must be more than 0"},
		"no identity source":       {client(), func(c *Config) { c.WorkloadAPIAddr = "" }, "no identity source: give --use-workload-api-addr"},
		"bad Workload API":         {client(), func(c *Config) { c.WorkloadAPIAddr = "/a.sock" }, `--use-workload-api-addr: address "/a.sock" of the Workload API has neither scheme`},
		"bare trust domain":        {client(), func(c *Config) { c.SPIFFEID = spiffeid.RequireFromString("spiffe://td") }, "--spiffe-id spiffe://td: names a trust domain"},
		"status with https":        {client(), func(c *Config) { c.Status = "https://127.0.0.1:80" }, "--status https://127.0.0.1:80: served over plain HTTP only"},
		"status scheme and socket": {client(), func(c *Config) { c.Status = "http://unix:/x" }, "a scheme goes with HOST:PORT only"},
		"status nonsense":          {client(), func(c *Config) { c.Status = "here" }, "--status here: not an address"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			cfg := tt.base
			tt.change(&cfg)
			err := cfg.Validate()
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tt.want != "" && err == nil:
				t.Error("accepted")
			case tt.want != "" && (!strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n")):
				t.Errorf("%q, want one line with %q", err, tt.want)
			}
		})
	}
	t.Run("environment", func(t *testing.T) {
		cfg := client()
		cfg.WorkloadAPIAddr = ""
		t.Setenv("SPIFFE_ENDPOINT_SOCKET", "unix:///a")
		if err := cfg.Validate(); err != nil {
			t.Error(err)
		}
		t.Setenv("SPIFFE_ENDPOINT_SOCKET", "nonsense")
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), "SPIFFE_ENDPOINT_SOCKET: ") {
			t.Error(err)
		}
	})
	t.Run("all at once", func(t *testing.T) {
		err := Config{Mode: Server, WorkloadAPIAddr: "x"}.Validate()
		if n := strings.Count(err.Error(), "\n"); n != 3 {
			t.Errorf("%d lines: %v", n+1, err)
		}
		cfg := client()
		cfg.WorkloadAPIAddr, cfg.SPIFFEID, cfg.VerifyURIs = "x", spiffeid.RequireFromString("spiffe://td"), []string{"a*", "", "b"}
		if err := cfg.Validate(); strings.Count(err.Error(), "\n") != 3 {
			t.Errorf("not 4 lines: %v", err)
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
		"port":        {func(c *Config) { c.Listen = l.Addr().String() }, "--listen " + l.Addr().String() + ": address already in use"},
		"file":        {func(c *Config) { c.Listen = "unix:" + file }, "is not a socket"},
		"status port": {func(c *Config) { c.Listen, c.Status = "unix:"+listen, l.Addr().String() }, "--status " + l.Addr().String() + ": address already in use"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			cfg := client()
			tt.change(&cfg)
			cfg.Ready = func(Addrs) { t.Error("called Ready") }
			err := Run(t.Context(), cfg)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v, want one line with %q", err, tt.want)
			}
			if _, err := os.Stat(listen); !os.IsNotExist(err) {
				t.Errorf("the socket stayed: %v", err)
			}
		})
	}
}

func FuzzParseEndpoint(f *testing.F) {
	for _, s := range []string{"unix:/a", "127.0.0.1:80", "[::1]:80", ":80", "systemd:x", "http://unix:/x", "[::1%lo]:http"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if e, err := parseEndpoint("--listen", s); err == nil && (e.address == "" || (e.network != "tcp" && e.network != "unix")) {
			t.Errorf("%q gave %+v", s, e)
		}
		if e, err := parseStatus(s); err == nil && e.address == "" {
			t.Errorf("%q gave %+v", s, e)
		}
	})
}
