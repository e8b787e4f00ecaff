status {
  listen = "http://127.0.0.1:8443"
}
tunnel "web" {
  direction = "inbound"
  listen    = ":8443"
  target    = "127.0.0.1:8080"
  policy {
    own_trust_domain = true
  }
}
tunnel "api" {
  direction = "inbound"
  listen    = "127.0.0.1:8443"
  target    = "127.0.0.1:8081"
  policy {
    own_trust_domain = true
  }
}
tunnel "api" {
  direction = "inbound"
  listen    = ":8444"
  target    = "127.0.0.1:8082"
}
