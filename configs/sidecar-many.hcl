# One process for all that a program needs: two ways in, three ways out, two identities, and files instead of a Workload API
# for the one that leads to a partner.

workload_api     = "unix:///run/lanyard/agent/public/api.sock"
shutdown_timeout = "30s"
drain_idle       = "5s"

status {
  listen = "http://127.0.0.1:9901"
}

# What users reach: gRPC and HTTP.
tunnel "api" {
  direction = "inbound"
  listen    = ":8443"
  target    = "127.0.0.1:8080"
  alpn      = ["h2", "http/1.1"]

  identity {
    spiffe_id = "spiffe://example.org/api"
  }
  policy {
    allow_uris          = ["spiffe://example.org/ns/*/sa/frontend"]
    allow_trust_domains = ["partner.test"]
  }
}

# What only operators reach.
tunnel "admin" {
  direction = "inbound"
  listen    = "127.0.0.1:8444"
  target    = "unix:/run/app/admin.sock"

  policy {
    allow_uris = ["spiffe://example.org/ops/**"]
  }
  timeouts {
    idle    = "10m"
    max_age = "12h"
  }
}

tunnel "db" {
  direction    = "outbound"
  listen       = "127.0.0.1:5432"
  target       = "db.example.org:5433"
  skip_resolve = true

  policy {
    allow_uris = ["spiffe://example.org/db"]
  }
}

tunnel "queue" {
  direction    = "outbound"
  listen       = "unix:/run/app/queue.sock"
  target       = "queue.example.org:5671"
  skip_resolve = true

  # Another identity than the default one, and any service of the own trust domain.
  identity {
    hint = "queue"
  }
  policy {
    own_trust_domain = true
  }
}

# A partner without SPIFFE: certificates from files, read again when they change; verified by host name, and by DNS name besides.
tunnel "partner" {
  direction    = "outbound"
  listen       = "127.0.0.1:8081"
  target       = "api.partner.test:443"
  skip_resolve = true
  via          = "http://proxy.example.org:3128"

  identity {
    cert    = "client.pem"
    key     = "client-key.pem"
    ca_cert = "partner-ca.pem"
  }
  policy {
    allow_dns_names = ["api.partner.test"]
  }
}
