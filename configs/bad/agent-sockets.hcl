agent {
  trust_domain       = "example.org"
  server_address     = "127.0.0.1"
  insecure_bootstrap = true
  socket_path        = "/run/lanyard/agent/public/api.sock"
  admin_socket_path  = "/run/lanyard/agent/public/admin/api.sock"
  socket "web" {
    path  = "/run/lanyard/web/api.sock"
    mode  = "rw-rw----"
    user  = "no-such-user"
    group = "no-such-group"
    owner = "root"
  }
  socket "web" {
    path = "/run/lanyard/web/./api.sock"
  }
  socket "db/1" {}
  socket {
    path = "/run/lanyard/other.sock"
  }
}
