# Redis behind mutual TLS: both ends of it, which run on different machines. Redis and its clients stay as they are.
#
#   redis-cli -> 127.0.0.1:6379 [sidecar "redis-client"] == mutual TLS ==> redis.example.org:6380 [sidecar "redis"] -> 127.0.0.1:6379
#
# Keep the one tunnel that the machine needs: the server's (let Redis listen on 127.0.0.1 only), or the clients'.

tunnel "redis" {
  direction = "inbound"
  listen    = ":6380"
  target    = "127.0.0.1:6379"

  policy {
    allow_uris = ["spiffe://example.org/ns/*/sa/cache-user"]
  }

  # Subscribers wait for hours: no idle timeout. A client that vanished is found by keep-alive probes.
  tcp {
    keep_alive   = "15s"
    user_timeout = "60s"
  }
}

tunnel "redis-client" {
  direction    = "outbound"
  listen       = "127.0.0.1:6379"
  target       = "redis.example.org:6380"
  skip_resolve = true

  policy {
    allow_uris = ["spiffe://example.org/redis"]
  }
}
