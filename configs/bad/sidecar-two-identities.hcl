tunnel "web" {
  direction = "inbound"
  listen    = ":8443"
  target    = "127.0.0.1:8080"
  identity {
    workload_api = "/run/agent.sock"
    cert         = "web.pem"
    key          = "web-key.pem"
  }
  policy {
    own_trust_domain = true
  }
}
tunnel "api" {
  direction = "inbound"
  listen    = ":8444"
  target    = "127.0.0.1:8081"
  identity {
    none = true
  }
  policy {
    own_trust_domain = true
  }
}
tunnel "admin" {
  direction = "inbound"
  listen    = ":8445"
  target    = "127.0.0.1:8082"
  identity {
    keystore        = "admin.p12"
    store_pass_file = "no-such-file"
    ca_cert         = "ca.pem"
    trust_bundle "example.org" { file = "bundle.json" }
    trust_bundle "Example Org" { file = "" }
  }
  policy {
    own_trust_domain = true
  }
}
