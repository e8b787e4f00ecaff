agent {
  trust_domain             = "example.org"
  server_address           = "127.0.0.1"
  insecure_bootstrap       = true
  trust_bundle_unix_socket = "/run/bundles.sock"
}
