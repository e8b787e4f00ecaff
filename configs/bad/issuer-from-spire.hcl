server {
  trust_domain = "example.org"
  data_dir     = "/var/lib/lanyard/issuer"
  federation {
    bundle_endpoint {
      port = 8443
    }
    federates_with "other.test" {
      bundle_endpoint_url = "https://other.test/bundle"
    }
  }
  experimental {
    require_pq_kem = true
    auth_opa_policy_engine {
      local {
        rego_path = "policy.rego"
      }
    }
    feature_flags = ["wit-svid", "teleport"]
  }
}
plugins {
  DataStore "sql" {
    plugin_data {
      database_type = "sqlite3"
    }
  }
  DataStore "other" {}
  KeyManager "aws_kms" {
    plugin_data {
      region = "eu-central-1"
    }
  }
  NodeAttestor "aws_iid" {
    plugin_data {}
  }
  NodeAttestor "gcp_iit" {
    enabled = false
  }
  NodeAttestor "x509_pop" {}
  NodeAttestor "mine" {
    plugin_cmd = "/opt/mine"
  }
  UpstreamAuthority "vault" {}
  Notifier "k8sbundle" {}
  BundlePublisher "aws_s3" {}
}
