agent {
  trust_domain       = "example.org"
  server_address     = "127.0.0.1"
  insecure_bootstrap = true
}
plugins {
  WorkloadAttestor "docker" {
    plugin_data {
      docker_version = "latest"
    }
  }
  WorkloadAttestor "k8s" {
    plugin_data {
      kubelet_read_only_port       = 102550
      kubelet_secure_port          = 10250
      certificate_path             = "client.crt"
      use_anonymous_authentication = true
    }
  }
}
