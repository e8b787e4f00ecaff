server {
  trust_domain = "example.org
  bind_port = 8081
}
