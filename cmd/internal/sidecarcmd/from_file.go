package sidecarcmd

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/telemetry"
	"github.com/lanyard-mtls/lanyard/sidecar"
	"github.com/lanyard-mtls/lanyard/sidecar/accept"
	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/metrics"
	"github.com/lanyard-mtls/lanyard/sidecar/policy"
	"github.com/lanyard-mtls/lanyard/sidecar/proxyproto"
	"github.com/lanyard-mtls/lanyard/sidecar/record"
	"github.com/lanyard-mtls/lanyard/sidecar/setting"
)

// config gives the configuration that the file describes, as far as it can be told. The error has what is wrong with single
// settings; the rest is for the Config's own validation.
func (f *file) config(env *cli.Env) (sidecar.Config, error) {
	var errs []error
	cfg := sidecar.Config{ShutdownTimeout: orDefault(f.ShutdownTimeout, atOnce), DrainIdle: orDefault(f.DrainIdle, orNone), Revision: cli.Version()}
	quiet, err := record.ParseQuiet(f.Quiet)
	if err != nil {
		errs = append(errs, setting.Errorf("quiet", "", "%w", err))
	}
	cfg.Quiet = quiet
	if b := f.Status; b != nil {
		cfg.Status = sidecar.Status{Listen: b.Listen, PProf: b.PProf, Shutdown: b.Shutdown}
	}
	if b := f.Metrics; b != nil {
		cfg.Metrics = metrics.Config{Prefix: b.Prefix, Graphite: b.Graphite, URL: b.URL, Interval: orDefault(b.Interval, atOnce)}
	}
	for i := range f.Tunnels {
		t, err := f.Tunnels[i].tunnel(f.workload(env))
		errs = append(errs, setting.In(f.Tunnels[i].Name, err))
		cfg.Tunnels = append(cfg.Tunnels, t)
	}
	cfg.Sandbox = sidecar.Sandbox{Enabled: !f.DisableLandlock, Reloads: true}
	if f.LogFile != "" {
		cfg.Sandbox.WriteDirs = append(cfg.Sandbox.WriteDirs, filepath.Dir(f.LogFile))
	}
	return cfg, errors.Join(errs...)
}

// log is how the file says to log.
func (f *file) log() telemetry.Config {
	cfg := telemetry.Config{Level: f.LogLevel, Format: f.LogFormat, File: f.LogFile, Source: f.LogSourceLocation}
	if f.Syslog {
		cfg.Syslog = syslogTag
	}
	return cfg
}

// workload is the Workload API of the tunnels that name no source.
func (f *file) workload(env *cli.Env) string {
	if f.WorkloadAPI != "" {
		return f.WorkloadAPI
	}
	if addr := env.Getenv("SPIFFE_ENDPOINT_SOCKET"); addr != "" {
		return addr
	}
	return "unix://" + env.WorkloadSocket()
}

func (b *tunnelBlock) tunnel(workload string) (sidecar.Tunnel, error) {
	var errs []error
	t := sidecar.Tunnel{
		Name: b.Name, Listen: b.Listen, Target: b.Target, UnsafeListen: b.UnsafeListen, UnsafeTarget: b.UnsafeTarget, ServerName: b.ServerName,
		Via: b.Via, TargetStatus: b.TargetStatus, ProxyProtocol: proxyproto.Mode(b.ProxyProtocol), AcceptProxyProtocol: b.AcceptProxyProtocol,
		ALPN: b.ALPN, ReusePort: b.ReusePort, SkipResolve: b.SkipResolve, Policy: b.Policy.config(), CloseTimeout: defaultClose,
	}
	var err error
	if t.Mode, err = modeOf(b.Direction); err != nil {
		errs = append(errs, err)
	}
	if t.Identity, err = b.Identity.config(workload); err != nil {
		errs = append(errs, err)
	}
	if b.SocketMode != "" {
		mode, err := parseMode(b.SocketMode)
		if err != nil {
			errs = append(errs, setting.Errorf("socket_mode", "", "%w", err))
		}
		t.SocketMode = fs.FileMode(mode)
	}
	if to := b.Timeouts; to != nil {
		t.ConnectTimeout, t.IdleTimeout, t.MaxAge = orDefault(to.Connect, same), to.Idle, to.MaxAge
		if to.Connect != nil && *to.Connect == 0 {
			errs = append(errs, setting.Errorf("connect_timeout", "0s", "must be more than 0"))
		}
		if to.Close != nil {
			t.CloseTimeout = orNone(*to.Close)
		}
	}
	if t.Policy.Rego != (policy.Rego{}) {
		t.Policy.Rego.Timeout = t.ConnectTimeout
	}
	if l := b.Limits; l != nil {
		t.Limits = accept.Limits{Connections: l.Connections, PerPeer: l.PerPeer}
		if l.Handshakes != nil {
			t.Limits.Handshakes = noLimit(*l.Handshakes)
		}
	}
	if c := b.TCP; c != nil {
		t.UserTimeout = c.UserTimeout
		if c.KeepAlive != nil {
			t.KeepAlive = keepAlive(*c.KeepAlive)
		}
	}
	if c := b.TLS; c != nil {
		if t.MaxTLSVersion, err = tlsVersion(c.MaxVersion); err != nil {
			errs = append(errs, err)
		}
		suites, more := cipherSuites(c.CipherSuites, false)
		t.CipherSuites, errs = suites, append(errs, more...)
	}
	return t, errors.Join(errs...)
}

func same(d time.Duration) time.Duration { return d }

// orDefault gives 0, a Config's default, for what the file doesn't say, and else what is made of it.
func orDefault(d *time.Duration, as func(time.Duration) time.Duration) time.Duration {
	if d == nil {
		return 0
	}
	return as(*d)
}

// modeOf reads a direction. That there is none is told elsewhere.
func modeOf(direction string) (sidecar.Mode, error) {
	if direction == "" {
		return "", nil
	}
	for _, mode := range []sidecar.Mode{sidecar.Server, sidecar.Client} {
		if direction == string(mode.Direction()) {
			return mode, nil
		}
	}
	return "", setting.Errorf("direction", direction, `give "inbound" (mutual TLS in, plaintext to the target) or "outbound" (plaintext in, mutual TLS to the target)`)
}

// config gives the identity; without a source it is workload's.
func (b *identityBlock) config(workload string) (identity.Config, error) {
	if b == nil {
		return identity.Config{WorkloadAPI: workload, Watch: true}, nil
	}
	var errs []error
	c := identity.Config{WorkloadAPI: b.WorkloadAPI, Hint: b.Hint, Cert: b.Cert, Key: b.Key, CACert: b.CACert, Keystore: b.Keystore, None: b.None, Watch: true}
	if b.SPIFFEID != "" {
		id, err := spiffeid.FromString(b.SPIFFEID)
		if err != nil {
			errs = append(errs, setting.Errorf("spiffe_id", b.SPIFFEID, "no SPIFFE ID: %w", err))
		}
		c.SPIFFEID = id
	}
	for _, tb := range b.TrustBundles {
		if c.TrustBundles == nil {
			c.TrustBundles = map[string]string{}
		}
		if c.TrustBundles[tb.TrustDomain] != "" {
			errs = append(errs, setting.Errorf("trust_bundle", tb.TrustDomain, "is there twice: keep one file"))
		}
		c.TrustBundles[tb.TrustDomain] = tb.File
	}
	var err error
	if c.StorePass, err = secret("store_pass", b.StorePassFile); err != nil {
		errs = append(errs, err)
	}
	if p := b.PKCS11; p != nil {
		c.PKCS11 = identity.PKCS11{Module: p.Module, TokenLabel: p.TokenLabel}
		if c.PKCS11.PIN, err = secret("pkcs11_pin", p.PINFile); err != nil {
			errs = append(errs, err)
		}
	}
	if a := b.ACME; a != nil {
		c.ACME = identity.ACME{FQDN: a.Name, Email: a.Email, AgreeToTOS: a.AgreeToTOS, CA: a.CA, TestCA: a.TestCA}
	}
	if c.WorkloadAPI == "" && b.noSource() {
		c.WorkloadAPI = workload
	}
	return c, errors.Join(errs...)
}

// noSource says that b leaves it to the Workload API. Only none with authorities of its own does without.
func (b *identityBlock) noSource() bool {
	files := b.Cert != "" || b.Key != "" || b.Keystore != "" || b.CACert != "" || len(b.TrustBundles) > 0
	return !files && b.PKCS11 == nil && b.ACME == nil
}

func (b *policyBlock) config() policy.Config {
	if b == nil {
		return policy.Config{}
	}
	return policy.Config{
		AllowAll: b.AllowAll, OwnTrustDomain: b.OwnTrustDomain, AllowURIs: b.AllowURIs, AllowTrustDomains: b.AllowTrustDomains, DenyURIs: b.DenyURIs,
		AllowCNs: b.AllowCNs, AllowOUs: b.AllowOUs, AllowDNSNames: b.AllowDNSNames, AllowIPs: b.AllowIPs, Pins: b.Pins,
		Rego: policy.Rego{Path: b.Rego, Query: b.Query}, DisableAuthentication: b.DisableAuthentication,
	}
}

// maxSecret bounds a file with a password, in bytes.
const maxSecret = 4 << 10

// secret reads a password from a file, without the line's end; the error never shows what is in it.
func secret(key, path string) (string, error) {
	if path == "" {
		return "", nil
	}
	f, err := os.Open(path)
	if err != nil {
		return "", setting.Errorf(key, path, "can't be read: %w", errors.Unwrap(err))
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	switch {
	case err != nil:
		return "", setting.Errorf(key, path, "can't be read: %w", errors.Unwrap(err))
	case len(data) > maxSecret:
		return "", setting.Errorf(key, path, "has more than %d bytes: this is no password", maxSecret)
	}
	return string(bytes.TrimRight(data, "\r\n")), nil
}

// unambiguous gives the errors in err but for those about tunnels that share a name: which of them is meant, nobody could tell. That
// they do is kept.
func (f *file) unambiguous(err error) error {
	count := map[string]int{}
	for _, t := range f.Tunnels {
		count[t.Name]++
	}
	var out []error
	for _, err := range setting.All(err) {
		if e, ok := errors.AsType[*setting.Error](err); !ok || e.Key == "tunnel" || count[e.Tunnel] < 2 {
			out = append(out, err)
		}
	}
	return errors.Join(out...)
}
