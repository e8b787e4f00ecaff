agent {
  trust_domain       = "example.org"
  server_address     = "127.0.0.1"
  insecure_bootstrap = true
}
plugins {
  NodeAttestor "x509pop" {
    plugin_data {
      certificate_path = "node.crt"
      private_key      = "node.key"
    }
  }
  NodeAttestor "join_key" {
    plugin_data {}
  }
}
