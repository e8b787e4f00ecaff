package sds

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "rewrite the samples in configs/envoy")

// samples are the configurations in configs/envoy.
func samples() map[string]BootstrapOptions {
	const socket = "/run/lanyard/agent/public/api.sock"
	return map[string]BootstrapOptions{
		"inbound.yaml": {
			NodeID: "server", SDSSocket: socket, Admin: "127.0.0.1:9901",
			Inbound: &Leg{Listen: "0.0.0.0:8443", Target: "127.0.0.1:8080",
				Peers: []spiffeid.ID{spiffeid.RequireFromString("spiffe://lanyard.test/client")}},
		},
		"outbound.yaml": {
			NodeID: "client", SDSSocket: socket, Admin: "127.0.0.1:9902",
			Outbound: &Leg{Listen: "127.0.0.1:8000", Target: "server.lanyard.test:8443",
				Peers: []spiffeid.ID{spiffeid.RequireFromString("spiffe://lanyard.test/server")}},
		},
	}
}

func TestBootstrapMakesTheSamples(t *testing.T) {
	for name, opts := range samples() {
		path := filepath.Join("..", "configs", "envoy", name)
		var got bytes.Buffer
		check(t, Bootstrap(&got, opts))
		if *update {
			check(t, os.WriteFile(path, got.Bytes(), 0o644))
		}
		want, err := os.ReadFile(path)
		check(t, err)
		if diff := cmp.Diff(string(want), got.String()); diff != "" {
			t.Errorf("%s is not what Bootstrap makes; -update rewrites it (-want +got):\n%s", name, diff)
		}
	}
}

func TestEnvoyAcceptsTheSamples(t *testing.T) {
	binary := envoyBinary(t)
	for name := range samples() {
		path := filepath.Join("..", "configs", "envoy", name)
		out, err := exec.Command(binary, "--mode", "validate", "--config-path", path, "--log-level", "error").CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

func TestBootstrapErrors(t *testing.T) {
	td := spiffeid.RequireTrustDomainFromString("one.test")
	id := spiffeid.RequireFromString(ownID)
	good := func() BootstrapOptions {
		return BootstrapOptions{SDSSocket: "/run/sds.sock", Inbound: &Leg{Listen: "127.0.0.1:1", Target: "localhost:2", TrustDomain: td}}
	}
	check(t, Bootstrap(new(bytes.Buffer), good()))
	for name, tt := range map[string]struct {
		change func(*BootstrapOptions)
		want   string
	}{
		"no leg":          {func(o *BootstrapOptions) { o.Inbound = nil }, "neither inbound nor outbound"},
		"no socket":       {func(o *BootstrapOptions) { o.SDSSocket = "" }, "sds socket: is empty"},
		"relative socket": {func(o *BootstrapOptions) { o.SDSSocket = "x.sock" }, `sds socket: "x.sock": give an absolute path`},
		"long socket":     {func(o *BootstrapOptions) { o.SDSSocket = "/" + strings.Repeat("x", 107) }, "the kernel takes at most 107"},
		"line break":      {func(o *BootstrapOptions) { o.NodeID = "a\nadmin: {}" }, "node id: \"a\\nadmin: {}\": use printable characters only"},
		"not UTF-8":       {func(o *BootstrapOptions) { o.Cluster = "\xff" }, "cluster"},
		"public admin":    {func(o *BootstrapOptions) { o.Admin = "0.0.0.0:9901" }, "use a loopback address"},
		"nobody":          {func(o *BootstrapOptions) { o.Inbound.TrustDomain = spiffeid.TrustDomain{} }, "inbound: peers: give SPIFFE IDs or a trust domain"},
		"both":            {func(o *BootstrapOptions) { o.Inbound.Peers = []spiffeid.ID{id} }, "not both"},
		"a domain as ID": {func(o *BootstrapOptions) {
			o.Inbound.Peers, o.Inbound.TrustDomain = []spiffeid.ID{td.ID()}, spiffeid.TrustDomain{}
		}, `"spiffe://one.test" is not a workload's SPIFFE ID`},
		"listen by name": {func(o *BootstrapOptions) { o.Inbound.Listen = "localhost:1" }, "use an IP address to listen on"},
		"no port":        {func(o *BootstrapOptions) { o.Inbound.Listen = "127.0.0.1" }, `inbound: listen: "127.0.0.1": use HOST:PORT`},
		"port 0":         {func(o *BootstrapOptions) { o.Inbound.Listen = "127.0.0.1:0" }, `port "0" is not a number from 1 to 65535`},
		"bad port":       {func(o *BootstrapOptions) { o.Inbound.Target = "x:http" }, `port "http" is not a number`},
		"bad host":       {func(o *BootstrapOptions) { o.Inbound.Target = "a b:80" }, "neither an IP address nor a host name"},
		"bad IP address": {func(o *BootstrapOptions) { o.Inbound.Target = "10.0.0.999:80" }, "neither an IP address nor a host name"},
		"bad pipe":       {func(o *BootstrapOptions) { o.Inbound.Target = "unix:x" }, "give an absolute path"},
	} {
		t.Run(name, func(t *testing.T) {
			opts := good()
			tt.change(&opts)
			var out bytes.Buffer
			err := Bootstrap(&out, opts)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if out.Len() > 0 {
				t.Error("something was written")
			}
		})
	}
}

// FuzzBootstrap puts a string into every place that takes one: either it is
// refused, or it comes out of the YAML as it went in.
func FuzzBootstrap(f *testing.F) {
	for _, s := range []string{"a", `"`, `\`, "'#: {}[]", "*a &b !c", "{{.}}", "a\u2028b", "%", "ü", "0x1", "~", "//", "//x", "x///y", "x/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var out bytes.Buffer
		err := Bootstrap(&out, BootstrapOptions{
			NodeID: "n" + s, Cluster: "c" + s, SVIDName: "s" + s, BundleName: "b" + s, SDSSocket: "/" + s,
			Inbound: &Leg{Listen: "127.0.0.1:1", Target: "unix:///" + s, TrustDomain: spiffeid.RequireTrustDomainFromString("one.test")},
		})
		if err != nil {
			return
		}
		var got struct {
			Node   struct{ ID, Cluster string }
			Static struct {
				Listeners []any
				Clusters  []struct {
					LoadAssignment struct {
						Endpoints []struct {
							LBEndpoints []struct {
								Endpoint struct {
									Address struct{ Pipe struct{ Path string } }
								}
							} `json:"lb_endpoints"`
						}
					} `json:"load_assignment"`
				}
			} `json:"static_resources"`
		}
		if err := yaml.UnmarshalStrict(out.Bytes(), &map[string]any{}); err != nil {
			t.Fatalf("%v\n%s", err, &out)
		}
		check(t, yaml.Unmarshal(out.Bytes(), &got))
		if got.Node.ID != "n"+s || got.Node.Cluster != "c"+s || len(got.Static.Listeners) != 1 || len(got.Static.Clusters) != 2 {
			t.Fatalf("%q became something else:\n%s", s, &out)
		}
		for _, c := range got.Static.Clusters {
			if path := c.LoadAssignment.Endpoints[0].LBEndpoints[0].Endpoint.Address.Pipe.Path; path != "/"+s {
				t.Errorf("path %q came out as %q", "/"+s, path)
			}
		}
	})
}
