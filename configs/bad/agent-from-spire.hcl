agent {
  trust_domain       = "example.org"
  server_address     = "127.0.0.1"
  insecure_bootstrap = true
  experimental {
    named_pipe_name       = "\\spire-agent\\public\\api"
    admin_named_pipe_name = "\\spire-agent\\private\\api"
    feature_flags         = ["wit-svid", "teleport"]
    broker {
      socket_path = "/run/spire/broker.sock"
    }
  }
}
plugins {
  KeyManager "aws_kms" {}
  NodeAttestor "aws_iid" {}
  WorkloadAttestor "unix" {
    enabled = false
  }
  WorkloadAttestor "windows" {}
  WorkloadAttestor "mine" {
    plugin_cmd      = "./mine"
    plugin_checksum = "4e1243bd22c66e76c2ba9eddc1f91394e57f9f83"
  }
  WorkloadAttestor "docker" {
    plugin_data {
      podman_socket_path_template = "unix:///run/user/%d/podman/podman.sock"
      sigstore {}
    }
  }
  WorkloadAttestor "k8s" {
    plugin_data {
      disable_kubelet_client = true
      sigstore {}
      experimental {}
    }
  }
  SVIDStore "aws_secretsmanager" {}
}
