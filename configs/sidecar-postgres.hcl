# PostgreSQL behind mutual TLS, over UNIX sockets on both sides, so that no port of it is open to anyone else on either machine:
#
#   psql -h /run/lanyard/pg [sidecar "db-client"] == mutual TLS ==> db.example.org:5433 [sidecar "db"] -> /var/run/postgresql
#
# Keep the one tunnel that the machine needs. Clients say sslmode=disable: the sidecar encrypts.

tunnel "db" {
  direction = "inbound"
  listen    = ":5433"
  target    = "unix:/var/run/postgresql/.s.PGSQL.5432"

  policy {
    allow_uris = ["spiffe://example.org/app", "spiffe://example.org/ops/**"]
    deny_uris  = ["spiffe://example.org/ops/guest"]
  }

  # PostgreSQL's max_connections is 100: leave some for its administrators, and no one app with all of it.
  limits {
    connections = 90
    per_peer    = 40
  }
}

tunnel "db-client" {
  direction   = "outbound"
  listen      = "unix:/run/lanyard/pg/.s.PGSQL.5432"
  socket_mode = "0660"

  target       = "db.example.org:5433"
  skip_resolve = true

  policy {
    allow_uris = ["spiffe://example.org/db"]
  }
}
