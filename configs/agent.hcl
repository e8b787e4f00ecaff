# A Lanyard node agent. Every key but NodeAttestor "join_key" is SPIRE's: an agent.conf works here as far as its keys are
# done, and a key that isn't known, or not done yet, is an error with its line. Check a file with: lanyard agent validate -config agent.hcl

agent {
  # The issuer's trust domain. Required.
  trust_domain = "example.org"

  # The issuer, as a host name or an IP address, and its port. Required; the port is 8081 if not set.
  server_address = "issuer.example.org"
  server_port    = 8081

  # What the issuer is verified with at the first start: the output of "lanyard issuer bundle show". Later the agent keeps
  # the bundle itself. For trials, insecure_bootstrap = true takes whoever answers first.
  trust_bundle_path = "bundle.pem"

  # The token for the first start, from "lanyard issuer token generate". Not needed again, and the file may go: the agent's
  # key and SVID are kept. Of join_token and join_key; with others it goes before them.
  # join_token_file = "token"

  # The agent's key, SVID and bundle, made 0700. Default /var/lib/lanyard/agent for root, else below $XDG_STATE_HOME.
  # data_dir = "/var/lib/lanyard/agent"

  # The Workload API and SDS, open to all: callers are told apart by what the kernel says of them. Default
  # /run/lanyard/agent/public/api.sock for root, else below $XDG_RUNTIME_DIR.
  # socket_path = "/run/lanyard/agent/public/api.sock"

  # Health for the agent's own user. In a directory of its own. Default beside the other, if that has its default.
  # admin_socket_path = "/run/lanyard/agent/admin/api.sock"

  # ec-p256, ec-p384, rsa-2048 or rsa-4096.
  workload_x509_svid_key_type = "ec-p256"

  # How many SVIDs are kept ready that no workload has asked for yet.
  x509_svid_cache_max_size = 1000

  # How many JWT-SVIDs are kept, the last used, until half their life is over.
  jwt_svid_cache_max_size = 1000

  # What workloads that have a JWT-SVID of another trust domain validated are told of it, besides sub, aud and exp.
  allowed_foreign_jwt_claims = []

  # What Envoys call the secrets.
  sds {
    default_svid_name        = "default"
    default_bundle_name      = "ROOTCA"
    default_all_bundles_name = "ALL"
    # Bundles as plain trusted_ca, for Envoys without SPIFFE's validator.
    disable_spiffe_cert_validation = false
  }

  experimental {
    # How often the issuer is asked for changes.
    sync_interval = "5s"
  }

  # debug, info, warn or error; text or json; a file to append to instead of standard output.
  log_level  = "info"
  log_format = "text"
  # log_file = "/var/log/lanyard-agent.log"
}

plugins {
  # Keys are kept in data_dir.
  KeyManager "disk" {
    plugin_data {}
  }
  # How the agent proves what its node is. One of:
  #
  # join_token: a token that is good once. After a pause longer than the life of its SVID the agent needs a new one.
  NodeAttestor "join_token" {
    plugin_data {}
  }
  # join_key: a token that binds a key of the node's own (node-key.pem in data_dir), from "lanyard issuer token create
  # -method join_key". From then on the key is enough, after any pause. At a Lanyard issuer only.
  # NodeAttestor "join_key" {
  #   plugin_data {
  #     token_file = "token"
  #   }
  # }
  # x509pop: the key of a certificate that the issuer's ca_bundle_path vouches for. The files are read again each time.
  # NodeAttestor "x509pop" {
  #   plugin_data {
  #     private_key_path   = "node.key"
  #     certificate_path   = "node.crt"
  #     intermediates_path = "intermediates.crt"
  #   }
  # }
  # k8s_psat: a service account token that the kubelet projects into the agent's pod.
  # NodeAttestor "k8s_psat" {
  #   plugin_data {
  #     cluster    = "production"
  #     token_path = "/var/run/secrets/tokens/spire-agent"
  #   }
  # }
  # Always on; the block is for its settings.
  WorkloadAttestor "unix" {
    plugin_data {
      # Give the selectors unix:path and unix:sha256 too. A path is worth what the file's permissions are: name a binary of
      # one purpose, and a uid with it.
      discover_workload_path = true
      # The longest executable that is hashed for unix:sha256, in bytes; 0 is any, -1 hashes none.
      workload_size_limit = 0
    }
  }
}
