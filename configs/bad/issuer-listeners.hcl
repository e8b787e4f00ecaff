server {
  trust_domain      = "example.org"
  bind_address      = "issuer.invalid"
  disable_jwt_svids = true
  ca_key_type       = "ed25519"
  profiling_port    = -1
  proxy_protocol_trusted_cidrs = ["10.0.0.0/8", "10.0.0.1"]
}
telemetry {
  Prometheus {
    port = 99880
    tls {
      cert_file = "cert.pem"
    }
  }
}
health_checks {
  listener_enabled = true
  bind_port        = "http"
  ready_path       = "ready"
}
oidc {
  jwks_uri = "http://oidc.example.org/keys"
}
