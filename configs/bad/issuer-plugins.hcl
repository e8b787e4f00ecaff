server {
  trust_domain = "example.org"
  data_dir     = "/var/lib/lanyard/issuer"
}
plugins {
  KeyManager "disk" {
    plugin_data {
      keys_path  = "/var/lib/lanyard/keys.json"
      plain_text = true
    }
  }
  KeyManager "memory" {}
  NodeAttestor "join_token" {
    plugin_data {
      ttl = 600
    }
  }
  NodeAttestor "x509pop" {
    plugin_data {
      mode             = "pki"
      ca_bundle_path   = "issuer-no-such.pem"
      max_intermediates = 0
    }
  }
  NodeAttestor "x509pop" {}
  NodeAttestor "k8s_psat" {
    plugin_data {
      clusters = {
        "demo" = {
          audience = ["spire-server"]
        }
      }
    }
    plugin_data_file = "psat.conf"
  }
  UpstreamAuthority "disk" {
    plugin_data {
      cert_file_path = "ca.pem"
    }
  }
  UpstreamAuthority "spire" {
    plugin_data {
      server_address = "root.example.org"
      server_port    = 80810
    }
  }
  CredentialComposer "uniqueid" {
    plugin_data_file = "issuer-no-such.conf"
  }
}
