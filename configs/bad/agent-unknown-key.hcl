agent {
  trust_domain       = "example.org"
  server_adress      = "127.0.0.1"
  insecure_bootstrap = true
}
plugin {
}
