agent {
  trust_domain      = "example.org"
  server_address    = "127.0.0.1"
  server_port       = 70000
  trust_bundle_path = "no-such-bundle.pem"
}
