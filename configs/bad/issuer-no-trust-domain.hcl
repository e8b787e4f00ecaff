server {
  bind_port = 8081
}
