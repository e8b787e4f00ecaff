server {
  trust_domain = "Example Org"
  bind_port    = "http"
  ca_ttl       = "24"
  agent_ttl    = 3600
  admin_ids    = ["spiffe://example.org/ops", "example.org/ops"]
  log_level    = "lots"
}
