agent {
  trust_domain       = "example.org"
  server_address     = "127.0.0.1"
  insecure_bootstrap = true
}
telemetry {
  Prometheus {
    port = 99880
    tls {
      use_spire_svid        = true
      cert_file             = "agent.pem"
      authorized_spiffe_ids = ["prometheus"]
    }
  }
  MetricsPrefix = "agent"
}
health_checks {
  listener_enabled = true
  bind_port        = "-80"
  live_path        = "live"
}
