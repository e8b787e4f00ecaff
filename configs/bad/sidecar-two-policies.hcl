tunnel "web" {
  direction = "inbound"
  listen    = ":8443"
  target    = "127.0.0.1:8080"
  policy {
    allow_all  = true
    allow_uris = ["spiffe://example.org/web"]
    rego       = "policy.rego"
  }
}
tunnel "api" {
  direction = "inbound"
  listen    = ":8444"
  target    = "127.0.0.1:8081"
  policy {
    allow_cns = [""]
    pins      = ["md5:AAAA"]
    query     = "data.lanyard.allow"
  }
}
