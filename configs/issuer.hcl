# A Lanyard issuer. The keys are SPIRE's: the server.conf of a spire-server works here as it is, in HCL or JSON. A key that
# isn't known, or not done yet, is an error with its line; what has no meaning here is told in a note.
# Check a file with: lanyard issuer validate -config issuer.hcl

server {
  # The trust domain: the first part of every SPIFFE ID issued here. It can't be changed later. Required.
  trust_domain = "example.org"

  # Where agents connect. Default 127.0.0.1 and 8081; port 0 is any that is free.
  bind_address = "0.0.0.0"
  bind_port    = 8081

  # The admin socket, for "lanyard issuer entry create" and the like: whoever can open it is administrator, so it is made
  # 0600 in a directory that is made 0700. Default /run/lanyard/issuer/api.sock for root, else below $XDG_RUNTIME_DIR.
  # socket_path = "/run/lanyard/issuer/api.sock"

  # Records and private keys, made 0700; one issuer at a time. Default /var/lib/lanyard/issuer for root, else below
  # $XDG_STATE_HOME.
  # data_dir = "/var/lib/lanyard/issuer"

  # Lifetimes, with a unit. An authority signs for less than this, and is followed by another in good time.
  ca_ttl = "24h"
  # Of SVIDs whose entry names none. For their full life, want at most a sixth of ca_ttl.
  default_x509_svid_ttl = "1h"
  default_jwt_svid_ttl  = "5m"
  # Of agents' own SVIDs: how long an agent can be away. Default: default_x509_svid_ttl.
  agent_ttl = "4h"

  # Keys of new authorities: ec-p256 (default), ec-p384, rsa-2048 or rsa-4096. jwt_key_type: as ca_key_type.
  # ca_key_type = "ec-p256"
  # jwt_key_type = "ec-p256"

  # The subject of the authorities' certificates. Default C=US, O=SPIFFE.
  ca_subject {
    country      = ["DE"]
    organization = ["Example"]
    common_name  = "example.org"
  }

  # The "iss" of JWT-SVIDs, which OIDC clients look for. Default none.
  # jwt_issuer = "https://oidc.example.org"
  # disable_jwt_svids = false

  # SPIFFE IDs that may do over TCP what the admin socket allows. Default none.
  # admin_ids = ["spiffe://example.org/ops"]

  # What is slowed down where it comes too often: attempts to join, by token or claimed identity; signing, by agent. Both on.
  ratelimit {
    attestation = true
    signing     = true
  }

  # Proxies whose word on whose connection they forward is taken (PROXY protocol). Default none.
  # proxy_protocol_trusted_cidrs = ["10.0.0.0/8"]

  # Agents whose SVID expired so long ago are forgotten; prune_tofu_nodes: those too that joined by a token. Default: none are.
  # prune_attested_nodes_expired_for = "720h"
  # prune_attested_nodes_batch_size = 1000
  # prune_tofu_nodes = false

  # A line for each call. Without it there is one for each that changes or signs something, or is refused.
  # audit_log_enabled = false

  # debug, info, warn or error; text or json; a file to append to instead of standard output, reopened on SIGUSR2.
  log_level  = "info"
  log_format = "text"
  # log_file = "/var/log/lanyard-issuer.log"
  # log_source_location = false

  experimental {
    # Each agent has the selector spiffe_id:ITS-ID too.
    agent_spiffe_id_as_selector = false
  }
}

plugins {
  # Private keys in a file. Default keys.json in data_dir. KeyManager "memory" {} keeps none: each start makes new authorities.
  KeyManager "disk" {
    plugin_data {
      # keys_path = "/var/lib/lanyard/issuer/keys.json"
    }
  }

  # A token that binds the node's own key at first use: lanyard issuer token create -method join_key. Always on.
  NodeAttestor "join_key" {}
  # A token for one node and one join, as SPIRE's agents use it: lanyard issuer token generate. Always on.
  NodeAttestor "join_token" {
    plugin_data {}
  }
  # Further methods, and an authority above this one:
  #
  # NodeAttestor "x509pop" {
  #   plugin_data {
  #     ca_bundle_path = "/etc/lanyard/nodes-ca.pem"
  #   }
  # }
  # NodeAttestor "k8s_psat" {
  #   plugin_data {
  #     clusters = {
  #       "demo" = {
  #         service_account_allow_list = ["lanyard:lanyard-agent"]
  #       }
  #     }
  #   }
  # }
  # UpstreamAuthority "disk" {
  #   plugin_data {
  #     cert_file_path = "/etc/lanyard/root.pem"
  #     key_file_path  = "/etc/lanyard/root.key"
  #   }
  # }
}

# Metrics for Prometheus, at any path: under SPIRE's names, beginning with MetricPrefix, and our own, lanyard_issuer_….
telemetry {
  Prometheus {
    # host = "localhost"
    port = 9988
  }
  # MetricPrefix = "spire_server"
  # EnableTrustDomainLabel = false
  # EnableHostnameLabel = true
}

# 200 from ready_path while the issuer can sign and write, else 500.
health_checks {
  listener_enabled = true
  # bind_address = "localhost"
  bind_port = 8080
  # ready_path = "/ready"
  # live_path = "/live"
}

# OIDC discovery and key set for JWT-SVIDs, for clients such as clouds that know no SPIFFE. Default none.
#
# oidc {
#   domains        = ["oidc.example.org"]
#   listen         = ":443"
#   cert_file_path = "/etc/lanyard/oidc.pem"
#   key_file_path  = "/etc/lanyard/oidc.key"
# }
