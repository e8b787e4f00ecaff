tunnel {
  direction = "inbound"
  listen    = ":8443"
  target    = "127.0.0.1:8080"
}
tunnel "web" {
  direction = inbound
  policy    = "spiffe://example.org/web"
}
