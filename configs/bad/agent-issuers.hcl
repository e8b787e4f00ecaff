agent {
  trust_domain       = "example.org"
  server_address     = "issuer-1.example.org"
  server_port        = 8081
  server_addresses   = ["issuer-1.example.org:8081", "issuer-2.example.org", "issuer-3.example.org:http"]
  insecure_bootstrap = true
}
