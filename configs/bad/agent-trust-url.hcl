agent {
  trust_domain        = "example.org"
  server_address      = "127.0.0.1"
  trust_bundle_url    = "http://example.org/bundle.pem"
  rebootstrap_mode    = "always"
  rebootstrap_delay   = "1m"
}
