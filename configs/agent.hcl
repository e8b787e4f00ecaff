# A Lanyard node agent. The file is SPIRE's: an agent.conf works here as it is, but for what is refused by name with its line.
# Lanyard's own are server_addresses, socket and NodeAttestor "join_key". Check a file with: lanyard agent validate -config agent.hcl

agent {
  # The issuer's trust domain. Required.
  trust_domain = "example.org"

  # The issuer, as a host name or an IP address, and its port. Required; the port is 8081 if not set.
  server_address = "issuer.example.org"
  server_port    = 8081
  # Or several issuers of one trust domain: where one is away, the next is asked.
  #   server_addresses = ["issuer-1.example.org:8081", "issuer-2.example.org:8081"]

  # What the issuer is verified with at the first start: the output of "lanyard issuer bundle show". Later the agent keeps
  # the bundle itself. For trials, insecure_bootstrap = true takes whoever answers first.
  trust_bundle_path = "bundle.pem"
  # pem, or spiffe for the output of "lanyard issuer bundle show -format spiffe".
  # trust_bundle_format = "pem"
  # Or from elsewhere: a web server, one on a UNIX socket (then with http://), or another agent of the same trust domain.
  #   trust_bundle_url                 = "https://example.org/bundle.pem"
  #   trust_bundle_unix_socket         = "/run/bundles.sock"
  #   trust_bundle_spiffe_workload_api = "unix:///run/other/api.sock"

  # What to do where the issuer's certificate is of an authority that the agent has never heard of, as after an issuer was
  # set up anew: never, or auto, forget the bundle and join again with the one above, once it has been so for
  # rebootstrap_delay. always is auto, and refuses a NodeAttestor that can't join again by itself.
  # rebootstrap_mode = "never"
  #   rebootstrap_delay = "10m"

  # The token for the first start, from "lanyard issuer token generate". Not needed again, and the file may go: the agent's
  # key and SVID are kept. Of join_token and join_key; with others it goes before them.
  # join_token_file = "token"
  #   join_token = "b5c5bb8c-0e2b-4b2a-9a9a-0d8a0f3a2f10"

  # The agent's key, SVID and bundle, and what it holds for workloads, made 0700. Default /var/lib/lanyard/agent for root, else
  # below $XDG_STATE_HOME.
  # data_dir = "/var/lib/lanyard/agent"

  # The Workload API and SDS, open to all: callers are told apart by what the kernel says of them. Default
  # /run/lanyard/agent/public/api.sock for root, else below $XDG_RUNTIME_DIR.
  # socket_path = "/run/lanyard/agent/public/api.sock"

  # Explanations, log level, and health, for root and the agent's own user; and the delegated identity API. In a directory of
  # its own. Default beside the other, if that has its default.
  # admin_socket_path = "/run/lanyard/agent/admin/api.sock"

  # A socket for one workload, such as for mounting into its container: callers over it have the selector lanyard:socket:web.
  # The mode and the owner keep others out. only = true gives no identities but those of entries with that selector.
  # socket "web" {
  #   path  = "/run/lanyard/agent/web/api.sock"
  #   mode  = "0660"
  #   user  = "root"
  #   group = "www-data"
  #   only  = true
  # }

  # Who may have the identities of others, over the admin socket.
  # authorized_delegates = ["spiffe://example.org/cni"]

  # Callers without an identity get the trust domain's bundles, and so can verify others.
  # allow_unauthenticated_verifiers = false

  # ec-p256, ec-p384, rsa-2048 or rsa-4096.
  workload_x509_svid_key_type = "ec-p256"

  # How long an issuer may be away: SVIDs are renewed so long before their end, if they live long enough; 24h or more. By
  # default they are renewed at half their life.
  # availability_target = "24h"

  # How many SVIDs are kept ready that no workload has asked for yet.
  x509_svid_cache_max_size = 1000

  # How many JWT-SVIDs are kept, the last used, until half their life is over.
  jwt_svid_cache_max_size = 1000

  # What workloads that have a JWT-SVID of another trust domain validated are told of it, besides sub, aud and exp.
  allowed_foreign_jwt_claims = []

  # What is not to be served on socket_path.
  # disable_workload_api = false
  # disable_sds_api = false

  # What Envoys call the secrets.
  sds {
    default_svid_name        = "default"
    default_bundle_name      = "ROOTCA"
    default_all_bundles_name = "ALL"
    # Bundles as plain trusted_ca, for Envoys without SPIFFE's validator.
    disable_spiffe_cert_validation = false
  }

  experimental {
    # How often an issuer is asked for changes that doesn't tell of them by itself, as Lanyard's does.
    sync_interval = "5s"
    # Ask it only for what changed. For an issuer that can't.
    # use_sync_authorized_entries = true
    # How long a new JWT-SVID is waited for where the kept one is good and due; 5s or more, less than 30s.
    # jwt_svid_cache_hit_timeout = "10s"
    # Talk to the issuer only with X25519MLKEM768, which is safe from quantum computers.
    # require_pq_kem = false
    # How many calls a second callers with the same selectors may make; 0 is any number.
    ratelimit {
      fetch_x509_svid    = 0
      fetch_x509_bundles = 0
      fetch_jwt_svid     = 0
      fetch_jwt_bundles  = 0
      stream_secrets     = 0
      fetch_secrets      = 0
    }
    # feature_flags = []
  }

  # debug, info, warn or error; text or json; a file to append to instead of standard output, reopened on SIGUSR2.
  log_level  = "info"
  log_format = "text"
  # log_file = "/var/log/lanyard-agent.log"
  # log_source_location = false
  # Of which selectors the log may tell, by their beginnings. Default all, but the values of docker:env.
  # log_selectors = ["unix", "k8s:ns", "k8s:sa"]

  # Go's profiles, for this machine alone: http://localhost:PORT/debug/pprof/.
  # profiling_enabled = false
  # profiling_port = 6060
}

plugins {
  # Keys are kept in data_dir. KeyManager "memory" {} keeps the agent's own nowhere: it joins at each start.
  KeyManager "disk" {
    plugin_data {
      # directory = "/var/lib/lanyard/agent"
    }
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
  # x509pop: the key of a certificate that the issuer's ca_bundle_path vouches for. The files are read again each time. Instead
  # of them, spiffe_endpoint_socket = "unix:///run/other/api.sock" takes an X.509-SVID of another agent's.
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

  # What workloads are known by.
  #
  # The kernel: unix:uid, user, gid, group, supplementary_gid and supplementary_group. Always on; the block is for its settings.
  WorkloadAttestor "unix" {
    plugin_data {
      # Give the selectors unix:path and unix:sha256 too. A path is worth what the file's permissions are: name a binary of
      # one purpose, and a uid with it.
      discover_workload_path = true
      # The longest executable that is hashed for unix:sha256, in bytes; 0 is any, -1 hashes none.
      workload_size_limit = 0
    }
  }
  # Docker, and root's Podman: docker:label:KEY:VALUE, env:KEY=VALUE, image_id, image_config_digest and name.
  WorkloadAttestor "docker" {
    enabled = false
    plugin_data {
      docker_socket_path = "unix:///var/run/docker.sock"
      podman_socket_path = "unix:///run/podman/podman.sock"
      # docker_version = "1.41"
      # Where containers are found, if cgroups are laid out in a way of your own; with use_new_container_locator = false.
      #   container_id_cgroup_matchers = ["/my.slice/*/<id>"]
    }
  }
  # Kubernetes, from this node's kubelet: k8s:ns, sa, pod-label:KEY:VALUE, container-name, container-image, pod-owner and so on.
  WorkloadAttestor "k8s" {
    enabled = false
    plugin_data {
      # The kubelet is called at its secure port by the node's name, which is taken from the environment variable
      # MY_NODE_NAME; without a name at 127.0.0.1, where its certificate is not compared with the name.
      kubelet_secure_port = 10250
      # node_name_env = "MY_NODE_NAME"
      #   node_name                 = "node-1"
      #   kubelet_read_only_port    = 10255
      #   skip_kubelet_verification = false
      # Default the pod's service account.
      # kubelet_ca_path = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
      # token_path = "/var/run/secrets/kubernetes.io/serviceaccount/token"
      #   certificate_path             = "kubelet-client.crt"
      #   private_key_path             = "kubelet-client.key"
      #   use_anonymous_authentication = false
      # How old may be what was read of these files.
      # reload_interval = "1m"
      # How long a container that has just been started is waited for: so often, so far apart.
      # max_poll_attempts = 60
      # poll_retry_interval = "500ms"
      # No selectors of containers, only of pods.
      # disable_container_selectors = false
      # ns-label:KEY:VALUE, from the API server.
      # enable_namespace_labels = false
    }
  }
  # systemd: systemd:id:UNIT, fragment_path:FILE and invocation_id.
  WorkloadAttestor "systemd" {
    enabled = false
  }
}

# Metrics for Prometheus, at any path: under SPIRE's names, beginning with MetricPrefix, and our own, lanyard_agent_….
telemetry {
  Prometheus {
    # host = "localhost"
    port = 9989
    # tls {
    #   use_spire_svid        = true
    #   authorized_spiffe_ids = ["spiffe://example.org/prometheus"]
    # }
  }
  # MetricPrefix = "spire_agent"
  # EnableTrustDomainLabel = false
  # EnableHostnameLabel = true
  # AllowedPrefixes = []
  # BlockedPrefixes = []
  # AllowedLabels = []
  # BlockedLabels = []
}

# 200 from ready_path while the agent knows whom it may serve, from the issuer or from what it kept; else 500.
health_checks {
  listener_enabled = true
  # bind_address = "localhost"
  bind_port = 8089
  # ready_path = "/ready"
  # live_path = "/live"
}
