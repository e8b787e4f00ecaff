agent {
  trust_domain                = "example.org"
  server_address              = "127.0.0.1"
  insecure_bootstrap          = true
  workload_x509_svid_key_type = "rsa-1024"
  availability_target         = "12h"
  x509_svid_cache_max_size    = -5
  authorized_delegates        = ["spiffe://other.test/delegate"]
  log_level                   = "loud"
  profiling_port              = -1
  sds {
    default_svid_name   = "same"
    default_bundle_name = "same"
  }
  experimental {
    jwt_svid_cache_hit_timeout = "1m"
    ratelimit {
      fetch_x509_svid = -1
    }
  }
}
