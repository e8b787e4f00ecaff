# Lanyard sidecars: any number of tunnels in one process. Run it with: lanyard sidecar run -config sidecar.hcl
# Check it with: lanyard sidecar validate -config sidecar.hcl
# Who may use a tunnel: lanyard sidecar explain -config sidecar.hcl -tunnel web -peer spiffe://example.org/frontend
#
# It is read again on SIGHUP, and when it changes, all of it or nothing: if something is wrong, that is logged and the old
# configuration stays. Listeners that stay keep their sockets and connections. Durations have a unit: "90s", "10m", "24h".

# debug, info, warn or error; text or json; a file to append to instead of standard output.
log_level  = "info"
log_format = "text"
# log_file = "/var/log/lanyard-sidecar.log"

# Leave out of the log: "all", "conns", "conn-errs", "handshake-errs".
# quiet = ["conns"]

# How long open connections may go on after SIGTERM; exit code 1 if some had to be cut. Those that moved nothing for
# drain_idle are closed earlier; "0s" leaves them.
shutdown_timeout = "30s"
drain_idle       = "5s"

# Where identities come from, if a tunnel doesn't say otherwise. Default $SPIFFE_ENDPOINT_SOCKET, else the agent of this machine.
# workload_api = "unix:///run/lanyard/agent/public/api.sock"

# Health, metrics for Prometheus, and more. Nobody is asked who he is: keep it local, or let only the network of Prometheus in.
status {
  # [http[s]://]HOST:PORT, unix:PATH or systemd:NAME. Without http:// it is HTTPS with the first tunnel's certificate.
  listen = "http://127.0.0.1:9901"

  # /debug/pprof and POST /_shutdown, for clients on this machine.
  pprof    = false
  shutdown = false
}

# Pushing them as well, to Graphite or by POST of JSON. None of it is needed for Prometheus.
metrics {
  prefix   = "ghostunnel"
  interval = "30s"
  # graphite = "127.0.0.1:2003"
  # url = "http://127.0.0.1:8125/metrics"
}

# Inbound: mutual TLS in, plaintext to the program beside.
tunnel "web" {
  direction = "inbound"

  # HOST:PORT, unix:PATH or systemd:NAME. :PORT is all addresses, IPv4 and IPv6.
  listen = ":8443"

  # HOST:PORT or unix:PATH, of this machine. unsafe_target = true permits others: what is sent there is plaintext.
  target = "127.0.0.1:8080"

  # Protocols to agree on (ALPN), the preferred first. gRPC needs "h2". Default none.
  alpn = ["h2", "http/1.1"]

  # Tell the target who connects by a PROXY protocol v2 header: "conn" (addresses), "tls" (and TLS version, SNI, SPIFFE ID) or
  # "tls-full" (and the client's certificate). Only for targets that expect one.
  # proxy_protocol = "conn"

  # Behind a load balancer that sends such headers: its addresses.
  # accept_proxy_protocol = ["10.0.0.0/24"]

  # Ask the target for its health by HTTP when /_status is asked. Default: it accepts a connection.
  # target_status = "http://127.0.0.1:8080/healthz"

  # Who may connect: one rule that matches is enough, but deny_uris beat all. In a path, * stands for one segment, and ** at the
  # end for all below.
  policy {
    allow_uris = [
      "spiffe://example.org/frontend",
      "spiffe://example.org/ns/*/sa/web",
    ]
    # allow_trust_domains = ["partner.test"]
    # own_trust_domain = true
    # deny_uris = ["spiffe://example.org/ns/test/**"]
    # By names in certificates that are no SVIDs, exactly:
    # allow_dns_names = ["client.example.org"]
    # Open Policy Agent, asked where no other rule matched; a .rego file or a bundle.
    # rego = "policy.rego"
    # query = "data.lanyard.allow"
  }

  # "0s" is none. connect is for identity, handshake and reaching the target together; close runs once one side has said its last
  # and nothing comes from the other; idle ends connections on which nothing moves; max_age ends them whatever they do.
  timeouts {
    connect = "10s"
    close   = "60s"
    idle    = "0s"
    max_age = "0s"
  }

  # 0 is no limit. Over connections and handshakes, clients wait to be accepted; over per_peer, which counts by identity, they are
  # refused.
  limits {
    connections = 5000
    per_peer    = 500
    handshakes  = 200
  }

  # Silent peers are probed, and gone after 9 unanswered probes. user_timeout: one that leaves sent bytes unacknowledged so long is gone.
  tcp {
    keep_alive   = "15s"
    user_timeout = "0s"
  }
}

# Outbound: plaintext in from the program beside, mutual TLS to somewhere. It must name whom it expects there.
tunnel "db" {
  direction = "outbound"

  # Of this machine. unsafe_listen = true permits others: whoever connects acts under this identity.
  listen = "unix:/run/lanyard/db.sock"

  # Who may use a unix: socket, as chmod has it. Default 0600: the sidecar's own user.
  socket_mode = "0660"

  target = "db.example.org:5433"

  # Start even if the target's name can't be resolved yet.
  skip_resolve = true

  # The name asked for (SNI). Default the target's.
  # server_name = "db.example.org"

  # Reach the target through a proxy: http://, socks5:// or socks5h://[USER:PASSWORD@]HOST[:PORT].
  # via = "http://proxy.example.org:3128"

  # Which identity to be, where the Workload API offers several: spiffe_id, or the hint of its registration. Instead of the
  # Workload API: cert, key and ca_cert (PEM files), keystore and store_pass_file (PEM, PKCS#12 or JCEKS), or none = true, which
  # shows no certificate.
  identity {
    spiffe_id = "spiffe://example.org/web"
  }

  policy {
    allow_uris = ["spiffe://example.org/db"]
  }
}
