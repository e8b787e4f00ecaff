package harness

// serverConf is the issuer's configuration: one that SPIRE's server reads as well, but for the plugins that Lanyard
// has no need of.
func (d *Domain) serverConf() string {
	host, port := d.hostPort()
	text := `server {
  trust_domain = «td»
  bind_address = «host»
  bind_port    = ` + port + `
  socket_path  = «socket»
  data_dir     = «data»
  log_level    = "DEBUG"
}
`
	if d.options.SPIREServer != "" {
		text += `plugins {
  DataStore "sql" { plugin_data { database_type = "sqlite3" connection_string = «db» } }
  KeyManager "disk" { plugin_data { keys_path = «keys» } }
  NodeAttestor "join_token" { plugin_data {} }
}
`
	}
	return conf(text, "td", d.Name, "host", host, "socket", d.IssuerSocket, "data", d.Path("server"),
		"db", d.Path("server.sqlite3"), "keys", d.Path("keys.json"))
}

// agentConf is the agent's configuration; SPIRE's agent and ours read the same.
func (d *Domain) agentConf() string {
	host, port := d.hostPort()
	return conf(`agent {
  trust_domain      = «td»
  server_address    = «host»
  server_port       = `+port+`
  socket_path       = «socket»
  data_dir          = «data»
  trust_bundle_path = «bundle»
  log_level         = "DEBUG"
  experimental {
    sync_interval = «sync»
  }
}
plugins {
  KeyManager "disk" {
    plugin_data {
      directory = «data»
    }
  }
  NodeAttestor "join_token" {
    plugin_data {}
  }
  WorkloadAttestor "unix" {
    plugin_data {
      discover_workload_path = true
      workload_size_limit    = -1
    }
  }
}
`, "td", d.Name, "host", host, "socket", d.AgentSocket, "data", d.Path("agent"), "bundle", d.Path("bundle.pem"),
		"sync", d.options.SyncInterval)
}
