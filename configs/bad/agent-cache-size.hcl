agent {
  trust_domain               = "example.org"
  server_address             = "127.0.0.1"
  insecure_bootstrap         = true
  jwt_svid_cache_max_size    = -1
  allowed_foreign_jwt_claims = ["email"]
}
plugins {
  NodeAttestor "join_token" {
    plugin_data {}
  }
}
