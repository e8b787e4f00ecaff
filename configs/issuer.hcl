# A Lanyard issuer. Every key is SPIRE's: a server.conf works here as far as its keys are done, and a key that isn't known,
# or not done yet, is an error with its line. Check a file with: lanyard issuer validate -config issuer.hcl

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
  # Of SVIDs whose entry names none.
  default_x509_svid_ttl = "1h"
  # Of agents' own SVIDs: an agent that is away for longer has to join again. Default: default_x509_svid_ttl.
  agent_ttl = "24h"

  # The subject of the authorities' certificates. Default C=US, O=SPIFFE.
  ca_subject {
    country      = ["DE"]
    organization = ["Example"]
    common_name  = "example.org"
  }

  # SPIFFE IDs that may do over TCP what the admin socket allows. Default none.
  # admin_ids = ["spiffe://example.org/ops"]

  # debug, info, warn or error; text or json; a file to append to instead of standard output.
  log_level  = "info"
  log_format = "text"
  # log_file = "/var/log/lanyard-issuer.log"
}

# Both are built in and on; the blocks may stay in a file that comes from SPIRE.
plugins {
  # Keys are kept in data_dir.
  KeyManager "disk" {
    plugin_data {}
  }
  # Agents join with a token: lanyard issuer token generate -spiffeID spiffe://example.org/node/NAME
  NodeAttestor "join_token" {
    plugin_data {}
  }
}
