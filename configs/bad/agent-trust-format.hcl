agent {
  trust_domain        = "example.org"
  server_address      = "127.0.0.1"
  trust_bundle_url    = "https://example.org/bundle.json"
  trust_bundle_format = "jwks"
}
