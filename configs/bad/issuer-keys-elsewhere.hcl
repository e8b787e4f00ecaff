server {
  trust_domain = "example.org"
  data_dir     = "/var/lib/lanyard/issuer"
}
plugins {
  KeyManager "disk" {
    plugin_data {
      keys_path = "/etc/keys.json"
    }
  }
}
