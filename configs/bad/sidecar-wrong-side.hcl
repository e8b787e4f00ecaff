tunnel "web" {
  direction     = "inbound"
  listen        = ":8443"
  target        = "systemd:web"
  via           = "http://proxy.example.org"
  server_name   = "web.example.org"
  target_status = "web.example.org/healthz"
  policy {
    own_trust_domain = true
  }
}
tunnel "db" {
  direction             = "outbound"
  listen                = ":5432"
  target                = "unix:/run/db.sock"
  target_status         = "http://127.0.0.1/healthz"
  proxy_protocol        = "conn"
  accept_proxy_protocol = ["10.0.0.0/8"]
  policy {
    own_trust_domain = true
  }
}
