agent {
  trust_domain       = "spiffe://"
  server_address     = "127.0.0.1"
  server_port        = 70000
  insecure_bootstrap = "maybe"
  sds                = "default"
  experimental {
    sync_interval = "5 seconds"
    ratelimit {
      fetch_wit_svid = 3
    }
  }
}
plugins {
  WorkloadAttestor "unix" {
    plugin_data {
      discover_workload_paths = true
    }
  }
  WorkloadAttestor "k8s" {
    plugin_data {
      poll_retry_interval = 5
    }
  }
}
