agent {
  trust_domain       = "example.org"
  server_address     = "127.0.0.1"
  insecure_bootstrap = true
  data_dir           = "no-such-directory"
}
plugins {
  NodeAttestor "join_key" {
    plugin_data {
      token_file = "no-such-file"
    }
  }
}
