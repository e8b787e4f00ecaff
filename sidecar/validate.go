package sidecar

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/listen"
	"github.com/lanyard-mtls/lanyard/sidecar/proxyproto"
	"github.com/lanyard-mtls/lanyard/sidecar/setting"
	"github.com/lanyard-mtls/lanyard/sidecar/status"
	"github.com/lanyard-mtls/lanyard/sidecar/via"
)

// Validate returns everything that is wrong with c, each as a *setting.Error
// that names the tunnel and the setting. It does no I/O.
func (c Config) Validate() error {
	c = c.withDefaults()
	errs := []error{c.validateShared(), c.validateNames(), c.validateSockets()}
	for _, t := range c.Tunnels {
		errs = append(errs, setting.In(t.Name, t.validate()))
	}
	return errors.Join(errs...)
}

func (c Config) validateShared() error {
	var errs []error
	if len(c.Tunnels) == 0 {
		errs = append(errs, setting.Errorf("tunnel", "", `there is none: add tunnel "NAME" { … }`))
	}
	errs = append(errs, notNegative("shutdown_timeout", c.ShutdownTimeout), notNegative("identity_timeout", c.IdentityTimeout))
	if c.Status.Listen == "" {
		if c.Status.PProf {
			errs = append(errs, setting.Errorf("pprof", "", "needs a status address to be served on: add one"))
		}
		if c.Status.Shutdown {
			errs = append(errs, setting.Errorf("shutdown", "", "needs a status address to be served on: add one"))
		}
	} else if addr, err := listen.ParseStatus("status", c.Status.Listen); err != nil {
		errs = append(errs, err)
	} else {
		_, err := status.UsesHTTPS("status", addr, c.hasCertificate())
		errs = append(errs, err, addr.CheckListenable("status"))
	}
	return errors.Join(append(errs, c.Metrics.Validate())...)
}

func (c Config) validateNames() error {
	var errs []error
	seen := map[string]bool{}
	for _, t := range c.Tunnels {
		if seen[t.Name] {
			errs = append(errs, &setting.Error{Tunnel: t.Name, Key: "tunnel", Value: t.Name, Problem: "is there twice: give each a name of its own"})
		}
		seen[t.Name] = true
	}
	return errors.Join(errs...)
}

// validateSockets finds addresses that can't both be listened on.
func (c Config) validateSockets() error {
	type socket struct {
		addr listen.Address
		name string
	}
	var sockets []socket
	var errs []error
	if addr, err := listen.ParseStatus("status", c.Status.Listen); err == nil {
		sockets = append(sockets, socket{addr.Address, "status"})
	}
	for _, t := range c.Tunnels {
		addr, err := listen.Parse("listen", t.Listen)
		if err != nil {
			continue // told with the tunnel
		}
		for _, other := range sockets {
			if listen.Conflicts(addr, other.addr) {
				errs = append(errs, setting.In(t.Name, setting.Errorf("listen", t.Listen, "is the address of %s too: give each its own", other.name)))
			}
		}
		sockets = append(sockets, socket{addr, fmt.Sprintf("tunnel %q", t.Name)})
	}
	return errors.Join(errs...)
}

func (t Tunnel) validate() error {
	errs := []error{t.validateTimes(), t.validateLimits(), t.validateTLS(), t.Identity.Validate(), t.Policy.Validate()}
	if addr, err := listen.Parse("listen", t.Listen); err != nil {
		errs = append(errs, err)
	} else {
		errs = append(errs, addr.CheckListenable("listen"))
	}
	target, err := t.validateTarget()
	errs = append(errs, err)
	if len(t.Policy.Pins) > 0 && t.Identity.WorkloadAPI != "" {
		errs = append(errs, setting.Errorf("pins", "", "verify a key and nothing else, the Workload API is there to verify identities: use one of them"))
	}
	switch t.Mode {
	case Server:
		errs = append(errs, t.validateServer(target))
	case Client:
		errs = append(errs, t.validateClient(target))
	default:
		errs = append(errs, setting.Errorf("direction", string(t.Mode), `give "inbound" or "outbound"`))
	}
	return errors.Join(errs...)
}

func (t Tunnel) validateTarget() (listen.Address, error) {
	target, err := listen.Parse("target", t.Target)
	if err != nil {
		return target, err
	}
	if !target.IsDialable() {
		return target, setting.Errorf("target", t.Target, "can be listened on only: give HOST:PORT or unix:PATH")
	}
	if port, err := target.Port(); target.Network == listen.TCP && err == nil && port == 0 {
		return target, setting.Errorf("target", t.Target, "nobody can be reached at port 0: give a number from 1 to 65535")
	}
	return target, nil
}

func (t Tunnel) validateServer(target listen.Address) error {
	var errs []error
	if !target.IsZero() && target.IsDialable() && !t.UnsafeTarget && !target.IsLocal() {
		errs = append(errs, setting.Errorf("target", t.Target, "plaintext would leave this machine: use %s, or set unsafe_target", localTargets))
	}
	if t.Identity.None {
		errs = append(errs, setting.Errorf("identity", "", "a server needs a certificate: name its source"))
	}
	for key, value := range map[string]string{"via": t.Via, "server_name": t.ServerName} {
		if value != "" {
			errs = append(errs, setting.Errorf(key, "", "belongs to an outbound tunnel: remove it"))
		}
	}
	if u, err := url.Parse(t.TargetStatus); t.TargetStatus != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		errs = append(errs, setting.Errorf("target_status", t.TargetStatus, "not a URL: give http://HOST/PATH or https://HOST/PATH"))
	}
	_, err := proxyproto.ParseTrusted("accept_proxy_protocol", t.AcceptProxyProtocol)
	errs = append(errs, err)
	if t.ProxyProtocol != proxyproto.None {
		_, err := proxyproto.ParseMode("proxy_protocol", string(t.ProxyProtocol))
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// localTargets are what a server's target may be by itself, for messages.
const localTargets = "127.0.0.1:PORT, [::1]:PORT, localhost:PORT or unix:PATH"

func (t Tunnel) validateClient(target listen.Address) error {
	var errs []error
	if target.Network == listen.UNIX {
		errs = append(errs, setting.Errorf("target", t.Target, "a client's target is HOST:PORT"))
	}
	if target.Network == listen.TCP && host(target) == "" && t.ServerName == "" && t.verifiesHostName() {
		errs = append(errs, setting.Errorf("target", t.Target, "has no host that the server's certificate could be for: give HOST:PORT, or server_name"))
	}
	addr, err := listen.Parse("listen", t.Listen)
	if err == nil && !t.UnsafeListen && !addr.IsLocal() {
		errs = append(errs, setting.Errorf("listen", t.Listen, "others could use this identity: use %s, or set unsafe_listen", listen.LocalForms))
	}
	if t.Via != "" {
		_, err := via.Parse("via", t.Via)
		errs = append(errs, err)
	}
	if t.Identity.ACME != (identity.ACME{}) {
		errs = append(errs, setting.Errorf("acme", "", "obtains certificates for servers: give a client another source"))
	}
	if t.TargetStatus != "" {
		errs = append(errs, setting.Errorf("target_status", "", "belongs to an inbound tunnel: remove it"))
	}
	if t.ProxyProtocol != proxyproto.None {
		errs = append(errs, setting.Errorf("proxy_protocol", "", "belongs to an inbound tunnel: remove it"))
	}
	if len(t.AcceptProxyProtocol) > 0 {
		errs = append(errs, setting.Errorf("accept_proxy_protocol", "", "belongs to an inbound tunnel: remove it"))
	}
	return errors.Join(errs...)
}

func (t Tunnel) validateTimes() error {
	return errors.Join(notNegative("connect_timeout", t.ConnectTimeout), notNegative("idle_timeout", t.IdleTimeout),
		notNegative("max_age", t.MaxAge), notNegative("user_timeout", t.UserTimeout), notNegative("keep_alive", t.KeepAlive.Idle))
}

func notNegative(key string, d time.Duration) error {
	if d < 0 {
		return setting.Errorf(key, d.String(), "must be more than 0")
	}
	return nil
}

func (t Tunnel) validateLimits() error {
	var errs []error
	for _, l := range []struct {
		key string
		n   int
	}{{"connections", t.Limits.Connections}, {"per_peer", t.Limits.PerPeer}, {"handshakes", t.Limits.Handshakes}} {
		if l.n < 0 {
			errs = append(errs, setting.Errorf(l.key, fmt.Sprint(l.n), "must be at least 1, or 0 for no limit"))
		}
	}
	return errors.Join(errs...)
}

func (t Tunnel) validateTLS() error {
	var errs []error
	for _, p := range t.ALPN {
		if p == "" || len(p) > 255 {
			errs = append(errs, setting.Errorf("alpn", fmt.Sprintf("%q", p), "a protocol has 1 to 255 bytes: give one such as h2 or http/1.1"))
		}
	}
	if v := t.MaxTLSVersion; v != 0 && v != tls.VersionTLS12 && v != tls.VersionTLS13 {
		errs = append(errs, setting.Errorf("max_version", tls.VersionName(v), "give TLS1.2 or TLS1.3"))
	}
	return errors.Join(errs...)
}
