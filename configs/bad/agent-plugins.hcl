agent {
  trust_domain       = "example.org"
  server_address     = "127.0.0.1"
  insecure_bootstrap = true
  data_dir           = "data"
}
plugins {
  KeyManager "disk" {
    plugin_data {
      directory = "keys"
    }
  }
  KeyManager "memory" {}
  NodeAttestor "k8s_psat" {
    plugin_data {}
  }
  WorkloadAttestor "docker" {
    plugin_data {
      docker_socket_path           = "tcp://127.0.0.1:2375"
      container_id_cgroup_matchers = ["/docker/*"]
    }
  }
  WorkloadAttestor "k8s" {
    plugin_data_file = "no-such.conf"
  }
  WorkloadAttestor "systemd" {
    plugin_data {
      socket = "/run/dbus/system_bus_socket"
    }
  }
  WorkloadAttestor "dockr" {}
  WorkloadAttestor "systemd" {}
}
