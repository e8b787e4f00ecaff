agent {
  trust_domain       = "example.org"
  insecure_bootstrap = true
}
