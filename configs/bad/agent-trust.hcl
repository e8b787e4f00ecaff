agent {
  trust_domain                     = "example.org"
  server_address                   = "127.0.0.1"
  trust_bundle_path                = "bundle.pem"
  trust_bundle_url                 = "https://example.org/bundle.pem"
  trust_bundle_spiffe_workload_api = "unix:///run/parent/api.sock"
  insecure_bootstrap               = true
  rebootstrap_mode                 = "sometimes"
}
