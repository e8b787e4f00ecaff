package pair

import (
	"encoding/json"
	"net"
	"os/exec"
	"strconv"
)

type object = map[string]any

// Envoy is the binary at path.
func Envoy(path string) (*Peer, error) {
	found, err := version(`/(\d+\.\d+\.\d+)/`, path, "--version")
	if err != nil {
		return nil, err
	}
	return &Peer{Name: "envoy", Version: found + " (BoringSSL)", command: func(s Side) (*exec.Cmd, error) {
		config, err := envoyConfig(s)
		if err != nil {
			return nil, err
		}
		file, err := s.write("envoy.json", config)
		return exec.Command(path, "-c", file, "--concurrency", "2", "--disable-hot-restart", "--log-level", "critical"), err
	}}, nil
}

func envoyConfig(s Side) (string, error) {
	chain := object{"filters": []any{object{
		"name": "envoy.filters.network.tcp_proxy",
		"typed_config": object{
			"@type":       "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
			"stat_prefix": "tunnel", "cluster": "target",
		},
	}}}
	limits := object{"max_connections": s.MaxOpen, "max_pending_requests": s.MaxOpen, "max_requests": s.MaxOpen}
	cluster := object{
		"name": "target", "type": "STATIC", "connect_timeout": "5s",
		"circuit_breakers": object{"thresholds": []any{limits}}, // 1,024 connections are its default
		"load_assignment": object{"cluster_name": "target", "endpoints": []any{object{"lb_endpoints": []any{object{
			"endpoint": object{"address": envoyAddress(s.Target)},
		}}}}},
	}
	if s.Server {
		chain["transport_socket"] = envoyTLS(s, "Downstream")
	} else {
		cluster["transport_socket"] = envoyTLS(s, "Upstream")
	}
	text, err := json.Marshal(object{"static_resources": object{
		"listeners": []any{object{"name": "in", "address": envoyAddress(s.Listen), "filter_chains": []any{chain}}},
		"clusters":  []any{cluster},
	}})
	return string(text), err
}

func envoyTLS(s Side, kind string) object {
	file := func(path string) object { return object{"filename": path} }
	params := object{"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"}
	if !s.Defaults {
		params["ecdh_curves"] = []string{"X25519"}
	}
	config := object{
		"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3." + kind + "TlsContext",
		"common_tls_context": object{
			"tls_params":       params,
			"tls_certificates": []any{object{"certificate_chain": file(s.Cert.Cert), "private_key": file(s.Cert.Key)}},
			"validation_context": object{"trusted_ca": file(s.Cert.CA), "match_typed_subject_alt_names": []any{
				object{"san_type": "URI", "matcher": object{"exact": s.PeerID}},
			}},
		},
	}
	switch {
	case s.Server:
		config["require_client_certificate"] = true
	case s.Full:
		config["max_session_keys"] = 0
	}
	return object{"name": "envoy.transport_sockets.tls", "typed_config": config}
}

func envoyAddress(addr string) object {
	host, port, _ := net.SplitHostPort(addr)
	number, _ := strconv.Atoi(port) // our own: it is one
	return object{"socket_address": object{"address": host, "port_value": number}}
}
