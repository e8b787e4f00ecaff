package issuercmd

import (
	"cmp"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/lanyard-mtls/lanyard/cmd/internal/spireconf"
	"github.com/lanyard-mtls/lanyard/internal/hclconf"
	"github.com/lanyard-mtls/lanyard/internal/telemetry"
	"github.com/lanyard-mtls/lanyard/issuer"
	"github.com/lanyard-mtls/lanyard/issuer/ca"
	"github.com/lanyard-mtls/lanyard/issuer/oidc"
	"github.com/lanyard-mtls/lanyard/issuer/serverapi"
)

// defaultUpstreamPort is where a parent listens if nothing else is said; SPIRE wants it said.
const defaultUpstreamPort = 8081

// issuerConfig is what server {} says, as far as it needs no check.
func (s *serverBlock) issuerConfig() issuer.Config {
	c := issuer.Config{
		TrustDomain: s.TrustDomain, DataDir: s.DataDir, SocketPath: s.SocketPath, AdminIDs: s.AdminIDs,
		BindAddress: strings.Trim(s.BindAddress, "[]"),
		CATTL:       s.CATTL, DefaultX509SVIDTTL: s.DefaultX509SVIDTTL, AgentTTL: s.AgentTTL, DefaultJWTSVIDTTL: s.DefaultJWTSVIDTTL,
		CAKeyType: ca.KeyType(s.CAKeyType), JWTKeyType: ca.KeyType(s.JWTKeyType), JWTIssuer: s.JWTIssuer, DisableJWTSVIDs: s.DisableJWTSVIDs,
		Audit: s.AuditLogEnabled, Limits: serverapi.Limits{Attestation: true, Signing: true},
		PruneAgentsExpiredFor: s.PruneExpiredFor, PruneAgentsBatch: s.PruneBatchSize, PruneTOFUAgents: s.PruneTOFUNodes,
	}
	if s.CASubject != nil {
		c.CASubject = pkix.Name{Country: s.CASubject.Country, Organization: s.CASubject.Organization, CommonName: s.CASubject.CommonName}
	}
	for _, network := range s.ProxyProtocol {
		c.ProxyProtocol = append(c.ProxyProtocol, network.Prefix)
	}
	if r := s.RateLimit; r != nil {
		c.Limits.Attestation = r.Attestation == nil || *r.Attestation
		c.Limits.Signing = r.Signing == nil || *r.Signing
	}
	if s.Experimental != nil {
		c.AgentIDAsSelector = s.Experimental.AgentIDAsSelector
		c.RequirePQKEM = s.Experimental.RequirePQKEM
	}
	return c
}

// check finds the faults of server {} that the file's grammar doesn't.
func (s *serverBlock) check(conf *hclconf.File) {
	conf.Check("server.log_level", telemetry.Check(s.LogLevel, ""))
	conf.Check("server.log_format", telemetry.Check("", s.LogFormat))
	for key, value := range map[string]string{"server.ca_key_type": s.CAKeyType, "server.jwt_key_type": s.JWTKeyType} {
		if value != "" {
			_, err := ca.ParseKeyType(value)
			conf.Check(key, err)
		}
	}
	if s.PruneBatchSize < 0 {
		conf.Check("server.prune_attested_nodes_batch_size", fmt.Errorf("%d: want 1 or more", s.PruneBatchSize))
	}
	s.profiling().Check(conf, "server")
	e := s.Experimental
	if e == nil {
		return
	}
	if e.EventTimeout != 0 && e.SQLTimeout != 0 {
		conf.Errorf(conf.At("server.experimental.sql_transaction_timeout"), "server.experimental.sql_transaction_timeout and event_timeout exclude each other: remove both, they do nothing here")
	}
	for _, flag := range e.FeatureFlags {
		switch flag {
		case "wit-svid":
			conf.Errorf(conf.At("server.experimental.feature_flags"), "server.experimental.feature_flags: %q: known to SPIRE, not supported yet; remove it", flag)
		default:
			conf.Errorf(conf.At("server.experimental.feature_flags"), "server.experimental.feature_flags: %q is unknown; remove it", flag)
		}
	}
}

func (s *serverBlock) profiling() spireconf.Profiling {
	return spireconf.Profiling{Enabled: s.ProfilingEnabled, Port: s.ProfilingPort}
}

// config is what oidc {} says. Tokens and document agree on the issuer, if only one of them names it.
func (o *oidcBlock) config(s *serverBlock) *oidc.Config {
	if o == nil {
		return nil
	}
	c := &oidc.Config{
		Domains: o.Domains, Issuer: o.JWTIssuer, JWKSURI: o.JWKSURI, PathPrefix: o.ServerPathPrefix, SetKeyUse: o.SetKeyUse,
		Listen: o.Listen, CertFile: o.CertFilePath, KeyFile: o.KeyFilePath, Plaintext: o.Plaintext,
		AllowInsecureScheme: o.AllowInsecureScheme, LogRequests: o.LogRequests,
	}
	if strings.HasPrefix(s.JWTIssuer, "https://") {
		c.Issuer = cmp.Or(c.Issuer, s.JWTIssuer)
	}
	return c
}

// bindable tells an address to listen on: an IP address, or a name that is looked up.
func bindable(lookup func(host string) ([]netip.Addr, error), host string) (string, error) {
	if host == "" || net.ParseIP(host) != nil {
		return host, nil
	}
	addrs, err := lookup(host)
	if err != nil || len(addrs) == 0 {
		return "", fmt.Errorf("%q is not an IP address, such as 0.0.0.0, and no name of one", host)
	}
	slices.SortStableFunc(addrs, func(a, b netip.Addr) int { return cmp.Compare(a.Unmap().BitLen(), b.Unmap().BitLen()) }) // IPv4 first
	return addrs[0].Unmap().String(), nil
}

// atMost is the longest life of an SVID that no rotation cuts short: an authority signs until a sixth of its own is left.
func atMost(caTTL time.Duration) time.Duration { return min(caTTL/6, 7*24*time.Hour) }
