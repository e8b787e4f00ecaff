package agentcmd

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/lanyard-mtls/lanyard/cmd/internal/spireconf"
	"github.com/lanyard-mtls/lanyard/internal/hclconf"
	"github.com/lanyard-mtls/lanyard/internal/telemetry"
	"github.com/lanyard-mtls/lanyard/nodeagent"
	"github.com/lanyard-mtls/lanyard/nodeagent/svidcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
	"github.com/lanyard-mtls/lanyard/sds"
)

// SPIRE's bounds.
const (
	minAvailabilityTarget = 24 * time.Hour
	minJWTCacheHitTimeout = 5 * time.Second
	maxJWTCacheHitTimeout = 30 * time.Second
)

// check finds the faults of agent {} that the file's grammar doesn't.
func (b *agentBlock) check(conf *hclconf.File, s *settings) {
	conf.Check("agent.log_level", telemetry.Check(b.LogLevel, ""))
	conf.Check("agent.log_format", telemetry.Check("", b.LogFormat))
	conf.Check("agent.rebootstrap_mode", checkMode(b.RebootstrapMode))
	s.process.Profiling.Check(conf, "agent")
	conf.Check("agent.workload_x509_svid_key_type", svidcache.CheckKeyType(b.KeyType))
	checkSDS(conf, s.sds)
	if t := b.AvailabilityTarget; conf.Has("agent.availability_target") && t > 0 && t < minAvailabilityTarget {
		conf.Check("agent.availability_target", fmt.Errorf("%s: want 24h or more", short(t)))
	}
	for _, id := range b.AuthorizedDelegates {
		if td := s.agent.TrustDomain; !td.IsZero() && !id.MemberOf(td) || id.Path() == "" {
			conf.Check("agent.authorized_delegates", fmt.Errorf("%s is no workload of %s: want its SPIFFE ID, such as spiffe://%s/delegate", id, td.Name(), td.Name()))
		}
	}
	admin, public := filepath.Clean(s.agent.AdminSocketPath), filepath.Dir(filepath.Clean(s.agent.SocketPath))
	if s.agent.AdminSocketPath != "" && strings.HasPrefix(admin, public+"/") {
		conf.Errorf(conf.At("agent.admin_socket_path"), "agent.admin_socket_path %s is in the directory of socket_path, %s, which workloads are given: choose another directory", admin, public)
	}
	b.Experimental.check(conf)
}

// checkSDS takes one name for both kinds of bundles, as SPIRE does.
func checkSDS(conf *hclconf.File, opts *sds.Options) {
	if opts == nil {
		return
	}
	apart := *opts
	if name := cmp.Or(opts.BundleName, sds.DefaultBundleName); name == cmp.Or(opts.AllBundlesName, sds.DefaultAllBundlesName) {
		apart.AllBundlesName = name + "+"
		conf.Notef(conf.At("agent.sds"), "agent.sds: default_bundle_name and default_all_bundles_name are both %q: it is the own trust domain's bundle, and there is no name for all", name)
	}
	conf.CheckAll("agent", apart.Validate())
}

func (e *experimentalBlock) check(conf *hclconf.File) {
	if e == nil {
		return
	}
	if t := e.JWTSVIDCacheHitTimeout; conf.Has("agent.experimental.jwt_svid_cache_hit_timeout") && t != 0 && (t < minJWTCacheHitTimeout || t >= maxJWTCacheHitTimeout) {
		conf.Check("agent.experimental.jwt_svid_cache_hit_timeout", fmt.Errorf("%s: want 5s or more, and less than 30s", short(t)))
	}
	for key, n := range e.RateLimit.limits() {
		if path := "agent.experimental.ratelimit." + key; n < 0 {
			conf.Check(path, fmt.Errorf("%d: want calls a second, or 0 for any number", n))
		}
	}
	for _, flag := range e.FeatureFlags {
		switch flag {
		case "wit-svid":
			conf.Errorf(conf.At("agent.experimental.feature_flags"), "agent.experimental.feature_flags: %q: known to SPIRE, not supported yet; remove it", flag)
		default:
			conf.Errorf(conf.At("agent.experimental.feature_flags"), "agent.experimental.feature_flags: %q is unknown; remove it", flag)
		}
	}
}

// short is how a file would have it: 12h, not 12h0m0s.
func short(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func checkMode(mode string) error {
	modes := []string{upstream.RebootstrapNever, upstream.RebootstrapAuto, upstream.RebootstrapAlways}
	if mode != "" && !slices.Contains(modes, mode) {
		return fmt.Errorf("%q: want %s", mode, strings.Join(modes, ", "))
	}
	return nil
}

// checkRebootstrap reports what keeps an agent from beginning anew that is to.
func checkRebootstrap(c nodeagent.Config) error {
	if c.Rebootstrap != upstream.RebootstrapAuto && c.Rebootstrap != upstream.RebootstrapAlways {
		return nil
	}
	if c.InsecureBootstrap {
		return fmt.Errorf("rebootstrap_mode %q doesn't go with insecure_bootstrap: whoever took the issuer's place would get a new agent for nothing; give it a bundle", c.Rebootstrap)
	}
	if method, again := c.Attestor.Kind(); c.Rebootstrap == upstream.RebootstrapAlways && !again {
		return fmt.Errorf("rebootstrap_mode %q: an agent that joins by %s can't join again by itself: use x509pop or k8s_psat, or \"auto\"", c.Rebootstrap, method)
	}
	return nil
}

// notices tells what of the file does nothing, and what may surprise.
func notices(conf *hclconf.File, content file, c nodeagent.Config) {
	spireconf.NoteIdle(conf, nil)
	if conf.Has("agent.rebootstrap_delay") && (c.Rebootstrap == "" || c.Rebootstrap == upstream.RebootstrapNever) {
		conf.Notef(conf.At("agent.rebootstrap_delay"), "agent.rebootstrap_delay does nothing without rebootstrap_mode \"auto\" or \"always\"")
	}
	if len(c.AuthorizedDelegates) > 0 && c.AdminSocketPath == "" {
		conf.Notef(conf.At("agent.authorized_delegates"), "agent.authorized_delegates does nothing without admin_socket_path")
	}
	if c.DisableWorkloadAPI && content.Agent.DisableSDSAPI {
		conf.Notef(conf.At("agent.disable_workload_api"), "agent.disable_workload_api and disable_sds_api: nothing is served to workloads")
	}
	if method, again := c.Attestor.Kind(); c.MemoryKeys && !again {
		conf.Notef(conf.At("plugins.KeyManager.memory"), "plugins.KeyManager \"memory\": the agent joins by %s, and needs a new token at each start; with \"disk\" it doesn't", method)
	}
}
