tunnel "web" {
  direction = inbound
  listen    = ":8443"
  target    = "127.0.0.1:8080
}
