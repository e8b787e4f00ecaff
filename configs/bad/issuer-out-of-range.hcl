server {
  trust_domain = "example.org"
  bind_address = "issuer.example.org"
  bind_port    = 80810
  ca_ttl       = "1s"
}
