server {
  trust_domain = "example.org"
  data_dir     = "/var/lib/lanyard/issuer"
  ca_key_type  = "rsa-2048"
  federation {
    bundle_endpoint {
      port = 8443
    }
  }
}
plugins {
  DataStore "sql" {
    plugin_data {
      database_type = "sqlite3"
    }
  }
  KeyManager "memory" {
    plugin_data = {}
  }
  NodeAttestor "x509pop" {
    plugin_data {
      ca_bundle_path = "ca.pem"
    }
  }
  UpstreamAuthority "disk" {
    plugin_data {}
  }
}
telemetry {
  Prometheus {
    port = 9988
  }
}
