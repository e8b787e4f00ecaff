log_levle = "info"
status {
  lisen = "127.0.0.1:9901"
}
tunnel "web" {
  direction = "inbound"
  listen    = ":8443"
  target    = "127.0.0.1:8080"
  policy {
    allow_uri = ["spiffe://example.org/web"]
  }
  timeout {
    connect = "5s"
  }
}
tunnels "db" {}
