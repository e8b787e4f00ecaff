agent {
  trust_domain       = "example.org"
  server_address     = "127.0.0.1"
  join_token         = "aaaaaaaa-1111-2222-3333-444444444444"
  join_token_file    = "token"
  trust_bundle_path  = "bundle.pem"
  insecure_bootstrap = true
}
