agent {
  trust_domain       = "example.org"
  server_address     = "127.0.0.1"
  insecure_bootstrap = true
  rebootstrap_mode   = "auto"
}
