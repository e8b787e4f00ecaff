package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// Envoy is a running Envoy that speaks mutual TLS on one side.
type Envoy struct {
	*Process
	Listen string
	Admin  string // host:port
}

// EnvoySpec says how an Envoy runs. Its binary has a path of its own, so that the agent can tell it apart.
type EnvoySpec struct {
	Name, Binary string
	Server       bool   // mutual TLS in; otherwise out
	Target       string // host:port
	SDSSocket    string
	Certificate  string // SDS name of its SVID
	Bundle       string // SDS name of the bundle
	PeerID       string // the only SPIFFE ID it speaks with
	Delta        bool   // the delta protocol instead of state-of-the-world
	Printed      bool   // on the configuration `lanyard sds bootstrap` prints, instead of one written here
}

// Envoy starts one and waits until it is ready, which it is once it has its secrets.
func (s *Stage) Envoy(spec EnvoySpec) *Envoy {
	s.Helper()
	envoy := &Envoy{Listen: s.Addr(), Admin: s.Addr()}
	config := spec.bootstrap(s, envoy.Listen, envoy.Admin)
	if spec.Printed {
		config = s.printedBootstrap(spec, envoy)
	}
	file := s.WriteFile(spec.Name+".yaml", config) // JSON is YAML
	cmd := exec.Command(spec.Binary, "-c", file, "--concurrency", "2", "--disable-hot-restart", "--log-level", "warning")
	cmd.Dir = s.Dir
	envoy.Process = s.StartCmd(spec.Name, cmd)
	if err := envoy.ready(s.Context(), startLimit, envoy.hasSecrets); err != nil {
		s.Fatalf("%v", err)
	}
	return envoy
}

// hasSecrets succeeds when Envoy is live and has taken both its secrets: it may go live without them after a while.
func (envoy *Envoy) hasSecrets(ctx context.Context) error {
	if err := answers("http://" + envoy.Admin + "/ready")(ctx); err != nil {
		return err
	}
	updates, err := Get(ctx, NewConns(), "http://"+envoy.Admin+`/stats?usedonly&filter=^sds\..*\.update_success$`)
	if err == nil && strings.Count(updates, "\n") != 2 {
		err = fmt.Errorf("secrets taken: %q", updates)
	}
	return err
}

// printedBootstrap is the configuration Lanyard prints for the same.
func (s *Stage) printedBootstrap(spec EnvoySpec, envoy *Envoy) string {
	s.Helper()
	leg := "-outbound"
	if spec.Server {
		leg = "-inbound"
	}
	args := []string{"sds", "bootstrap", "-sdsSocket", spec.SDSSocket, "-admin", envoy.Admin, "-svidName", spec.Certificate,
		"-bundleName", spec.Bundle, leg + "Listen", envoy.Listen, leg + "Target", spec.Target, leg + "Peer", spec.PeerID}
	if !spec.Delta {
		args = append(args, "-sotw")
	}
	return s.Run(filepath.Join(s.Bin, "lanyard"), args...)
}

// object is a JSON object.
type object = map[string]any

func (spec EnvoySpec) bootstrap(s *Stage, listen, admin string) string {
	tls := spec.tls()
	chain := object{"filters": []any{object{
		"name": "envoy.filters.network.tcp_proxy",
		"typed_config": object{
			"@type":       "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
			"stat_prefix": "tunnel", "cluster": "target",
		},
	}}}
	target := cluster("target", tcpAddress(spec.Target))
	if spec.Server {
		chain["transport_socket"] = tls
	} else {
		target["transport_socket"] = tls
	}
	sds := cluster("sds", object{"pipe": object{"path": spec.SDSSocket}})
	sds["typed_extension_protocol_options"] = object{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": object{
		"@type":                "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
		"explicit_http_config": object{"http2_protocol_options": object{}},
	}}
	text, err := json.MarshalIndent(object{
		"node":  object{"id": spec.Name, "cluster": "lanyard"},
		"admin": object{"address": tcpAddress(admin)},
		"static_resources": object{
			"listeners": []any{object{"name": "in", "address": tcpAddress(listen), "filter_chains": []any{chain}}},
			"clusters":  []any{target, sds},
		},
	}, "", "  ")
	if err != nil {
		s.Fatalf("%v", err)
	}
	return string(text)
}

// tls is the transport socket: certificate and bundle by SDS, and the one peer.
func (spec EnvoySpec) tls() object {
	kind, api := "Upstream", "GRPC"
	if spec.Server {
		kind = "Downstream"
	}
	if spec.Delta {
		api = "DELTA_GRPC"
	}
	secret := func(name string) object {
		return object{"name": name, "sds_config": object{"resource_api_version": "V3", "api_config_source": object{
			"api_type": api, "transport_api_version": "V3",
			"grpc_services": []any{object{"envoy_grpc": object{"cluster_name": "sds"}}},
		}}}
	}
	config := object{
		"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3." + kind + "TlsContext",
		"common_tls_context": object{
			"tls_certificate_sds_secret_configs": []any{secret(spec.Certificate)},
			"combined_validation_context": object{
				"default_validation_context": object{"match_typed_subject_alt_names": []any{
					object{"san_type": "URI", "matcher": object{"exact": spec.PeerID}},
				}},
				"validation_context_sds_secret_config": secret(spec.Bundle),
			},
		},
	}
	if spec.Server {
		config["require_client_certificate"] = true
	}
	return object{"name": "envoy.transport_sockets.tls", "typed_config": config}
}

func cluster(name string, address object) object {
	return object{"name": name, "type": "STATIC", "connect_timeout": "5s", "load_assignment": object{
		"cluster_name": name,
		"endpoints":    []any{object{"lb_endpoints": []any{object{"endpoint": object{"address": address}}}}},
	}}
}

func tcpAddress(addr string) object {
	host, port, _ := strings.Cut(addr, ":")
	return object{"socket_address": object{"address": host, "port_value": json.Number(port)}}
}
