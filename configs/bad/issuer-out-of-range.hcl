server {
  trust_domain = "example.org"
  bind_address = "issuer.invalid"
  bind_port    = 80810
  ca_ttl       = "1s"
}
