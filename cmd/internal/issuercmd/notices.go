package issuercmd

import (
	"cmp"
	"time"

	"github.com/lanyard-mtls/lanyard/cmd/internal/spireconf"
	"github.com/lanyard-mtls/lanyard/internal/hclconf"
	"github.com/lanyard-mtls/lanyard/issuer"
	"github.com/lanyard-mtls/lanyard/issuer/ca"
)

// idle are the settings that are read, and mean nothing here, each with why. Nothing that guards anything is among them.
func idle() spireconf.Idle {
	return spireconf.Idle{
		"server.max_attested_node_info_staleness":                                               "what is known of agents is always current",
		"server.experimental.cache_reload_interval":                                             "there is no cache to reload: changes arrive as they are made",
		"server.experimental.full_cache_reload_interval":                                        "there is no cache to reload: changes arrive as they are made",
		"server.experimental.events_based_cache":                                                "changes always arrive as events",
		"server.experimental.prune_events_older_than":                                           "events leave nothing to prune",
		"server.experimental.event_timeout":                                                     "no event is ever missed",
		"server.experimental.sql_transaction_timeout":                                           "there is no SQL database",
		"server.experimental.wit_key_type":                                                      "WIT-SVIDs are not issued yet",
		"server.experimental.wit_issuer":                                                        "WIT-SVIDs are not issued yet",
		"server.experimental.named_pipe_name":                                                   "it is for Windows: the admin socket is socket_path",
		"plugins.UpstreamAuthority.spire.plugin_data.experimental.workload_api_named_pipe_name": "it is for Windows",
	}
}

// notices tells what of the file does nothing, and what may surprise.
func notices(conf *hclconf.File, content file, c issuer.Config) {
	spireconf.NoteIdle(conf, idle())
	shortened(conf, c)
	if s := content.Server; s.CASubject != nil && c.CASubject.String() == "" {
		conf.Notef(conf.At("server.ca_subject"), "server.ca_subject is empty: the default is used, C=US, O=SPIFFE")
	}
	if c.PruneAgentsExpiredFor == 0 && content.Server.PruneTOFUNodes {
		conf.Notef(conf.At("server.prune_tofu_nodes"), "server.prune_tofu_nodes does nothing without prune_attested_nodes_expired_for")
	}
	if c.MemoryKeys {
		conf.Notef(conf.At("plugins.KeyManager.memory"), "plugins.KeyManager \"memory\": every start makes new authorities, and agents that are away meanwhile have to join again; with \"disk\" they don't")
	}
	if c.OIDC != nil && c.JWTIssuer == "" && !c.DisableJWTSVIDs {
		conf.Notef(conf.At("oidc"), "oidc: JWT-SVIDs name no issuer, and OIDC clients want one: set server.jwt_issuer, such as \"https://%s\"", first(c.OIDC.Domains))
	}
}

func first(names []string) string {
	if len(names) == 0 {
		return "oidc.example.org"
	}
	return names[0]
}

// shortened tells which SVIDs live shorter than configured whenever their authority is about to be followed by the next.
func shortened(conf *hclconf.File, c issuer.Config) {
	caTTL := cmp.Or(c.CATTL, ca.DefaultTTL)
	for _, ttl := range []struct {
		key string
		d   time.Duration
	}{{"default_x509_svid_ttl", c.DefaultX509SVIDTTL}, {"agent_ttl", c.AgentTTL}, {"default_jwt_svid_ttl", c.DefaultJWTSVIDTTL}} {
		if most := atMost(caTTL); ttl.d > most {
			conf.Notef(conf.At("server."+ttl.key), "server.%s %s: some will live shorter, as the authority that signs them ends first; to prevent that, want at most a sixth of ca_ttl and 168h: %s", ttl.key, ttl.d, most)
		}
	}
}
