tunnel "db" {
  direction = "outbound"
  listen    = "127.0.0.1:5432"
  target    = "db.example.org:5433"
}
tunnel "queue" {
  direction = "outbound"
  listen    = "127.0.0.1:5671"
  target    = "queue.example.org:5671"
  policy {
    allow_all = true
  }
}
tunnel "web" {
  direction = "inbound"
  listen    = ":8443"
  target    = "127.0.0.1:8080"
}
