log_level        = "loud"
shutdown_timeout = "30s"
quiet            = ["some"]
status {
  listen = "https://unix:/run/status.sock"
}
metrics {
  graphite = "graphite.example.org"
  url      = "ftp://metrics.example.org"
}
tunnel "web" {
  direction   = "in"
  listen      = "127.0.0.1"
  target      = "db.example.org:80"
  socket_mode = "rw"
  identity {
    spiffe_id = "example.org/web"
  }
  policy {
    allow_uris = ["spiffe://example.org/we*", "spiffe://example.org/**/x", "example.org/web"]
    allow_ips  = ["10.0.0.0/8"]
    pins       = []
  }
  timeouts {
    connect = "0s"
    idle    = "1s"
  }
  limits {
    connections = -1
    per_peer    = 1
  }
  tls {
    max_version   = "1.2"
    cipher_suites = ["RC4"]
  }
}
