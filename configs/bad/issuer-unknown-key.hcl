server {
  trust_domian = "example.org"
  bind_prot    = 8081
  zone         = "eu"
}
