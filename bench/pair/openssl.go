package pair

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// The programs over OpenSSL, as Debian packages them. OpenSSL prefers AES-256-GCM: they are told AES-128-GCM.
const suite = "TLS_AES_128_GCM_SHA256"

// choose returns the lines that hold for a side, each with its condition before it.
func choose(pairs ...any) string {
	var lines strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i].(bool) {
			fmt.Fprintln(&lines, pairs[i+1])
		}
	}
	return lines.String()
}

// Haproxy is the one on PATH.
func Haproxy() (*Peer, error) {
	path, err := exec.LookPath("haproxy")
	if err != nil {
		return nil, err
	}
	found, err := version(`version (\S+)`, path, "-v")
	return &Peer{Name: "haproxy", Version: found, command: func(s Side) (*exec.Cmd, error) {
		same := !s.Defaults
		bind, server := "", " ssl crt "+s.Cert.Combined+" ca-file "+s.Cert.CA+" verify required verifyhost localhost sni str(localhost)"
		if s.Server {
			bind, server = " ssl crt "+s.Cert.Combined+" ca-file "+s.Cert.CA+" verify required", ""
		} else if s.Full {
			server += " no-ssl-reuse"
		}
		file, err := s.write("haproxy.cfg", choose(
			true, "global\nnbthread 2\nssl-default-bind-options ssl-min-ver TLSv1.3\nssl-default-server-options ssl-min-ver TLSv1.3",
			true, fmt.Sprint("maxconn ", (s.MaxOpen-400)/2),
			same, "ssl-default-bind-ciphersuites "+suite+"\nssl-default-server-ciphersuites "+suite+"\nssl-default-bind-curves X25519",
			true, "defaults\nmode tcp\ntimeout connect 5s\ntimeout client 1h\ntimeout server 1h",
			true, fmt.Sprint("maxconn ", (s.MaxOpen-400)/2),
			true, "frontend in\nbind "+s.Listen+bind+"\ndefault_backend out",
			true, "backend out\nserver target "+s.Target+server,
		))
		return exec.Command(path, "-db", "-q", "-f", file), err
	}}, err
}

// Nginx is the one on PATH, with its stream module.
func Nginx() (*Peer, error) {
	path, err := exec.LookPath("nginx")
	if err != nil {
		return nil, err
	}
	found, err := version(`nginx/(\S+)`, path, "-v")
	if err != nil {
		return nil, err
	}
	built, err := output(path, "-V")
	if err != nil {
		return nil, err
	}
	module := ""
	if !strings.Contains(built, "--with-stream ") {
		dir, err := version(`--modules-path=(\S+)`, path, "-V")
		if err == nil {
			module = filepath.Join(dir, "ngx_stream_module.so")
			_, err = os.Stat(module)
		}
		if err != nil {
			return nil, fmt.Errorf("nginx has no stream module (Debian: libnginx-mod-stream): %w", err)
		}
	}
	return &Peer{Name: "nginx", Version: found + " stream", command: func(s Side) (*exec.Cmd, error) {
		file, err := s.write("nginx.conf", nginxConfig(s, module))
		return exec.Command(path, "-e", "stderr", "-p", s.Dir, "-c", file), err
	}}, nil
}

func nginxConfig(s Side, module string) string {
	server, client, same := s.Server, !s.Server, !s.Defaults
	tls := "proxy_"
	if server {
		tls = ""
	}
	lines := choose(
		client, "listen "+s.Listen+";\nproxy_ssl on;\nproxy_ssl_server_name on;\nproxy_ssl_name localhost;",
		client, "proxy_ssl_verify on;\nproxy_ssl_trusted_certificate "+s.Cert.CA+";",
		client && s.Full, "proxy_ssl_session_reuse off;",
		client && same, "proxy_ssl_conf_command Curves X25519;",
		server, "listen "+s.Listen+" ssl;\nssl_verify_client on;\nssl_client_certificate "+s.Cert.CA+";",
		server && same, "ssl_ecdh_curve X25519;",
		same, tls+"ssl_conf_command Ciphersuites "+suite+";",
		true, tls+"ssl_protocols TLSv1.3;",
		true, tls+"ssl_certificate "+s.Cert.Cert+";\n"+tls+"ssl_certificate_key "+s.Cert.Key+";",
		true, "proxy_pass "+s.Target+";\nproxy_timeout 1h;",
	)
	return choose(
		module != "", "load_module "+module+";",
		os.Geteuid() == 0, "user root;",
		true, "daemon off;\npid "+filepath.Join(s.Dir, "pid")+";\nerror_log stderr crit;\nworker_processes 2;",
		true, fmt.Sprintf("worker_rlimit_nofile %d;\nevents { worker_connections %d; }", s.MaxOpen, s.MaxOpen),
		true, "stream {\naccess_log off;\nserver {\n"+lines+"}\n}",
	)
}

// Stunnel is the one on PATH. It has a thread for each connection.
func Stunnel() (*Peer, error) {
	path, err := exec.LookPath("stunnel")
	if err != nil {
		return nil, err
	}
	found, err := version(`stunnel (\d\S+)`, path, "-version")
	return &Peer{Name: "stunnel", Version: found, command: func(s Side) (*exec.Cmd, error) {
		same := !s.Defaults
		file, err := s.write("stunnel.conf", choose(
			true, "foreground = yes\nsyslog = no\ndebug = 2\npid =\n[tunnel]",
			true, "accept = "+s.Listen+"\nconnect = "+s.Target,
			true, "cert = "+s.Cert.Cert+"\nkey = "+s.Cert.Key+"\nCAfile = "+s.Cert.CA+"\nverifyChain = yes\nsslVersionMin = TLSv1.3",
			same, "ciphersuites = "+suite+"\ncurves = X25519",
			!s.Server, "client = yes\nsni = localhost\ncheckHost = localhost",
			!s.Server && s.Full, "sessionResume = no",
		))
		return exec.Command(path, file), err
	}}, err
}
