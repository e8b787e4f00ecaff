agent {
  trust_domain       = "example.org"
  server_address     = "127.0.0.1"
  insecure_bootstrap = true
  join_token         = "tok"
  socket_path        = "/run/workloads/workloads/workloads/workloads/workloads/workloads/workloads/workloads/workloads/workloads/workloads/api.sock"
}
