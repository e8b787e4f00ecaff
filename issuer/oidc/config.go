package oidc

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// Config says where the documents are served and what they say. The names in brackets are the keys of
// oidc-discovery-provider's configuration.
type Config struct {
	// Domains are the names under which clients reach this server; the discovery document is only for them
	// [domains]. At least one, or an Issuer, whose host is one then. IP addresses may be among them.
	Domains []string
	// Issuer is the URL that the document names as issuer, and that JWT-SVIDs must have as "iss". "" makes it of the
	// host that was asked for, and PathPrefix [jwt_issuer].
	Issuer string
	// JWKSURI is the URL of the key set, where clients reach it by another than the issuer's with /keys [jwks_uri].
	JWKSURI string
	// PathPrefix is the path below which both documents are; "" is / [server_path_prefix].
	PathPrefix string
	// SetKeyUse adds "use": "sig" to each key, for clients that look for it [set_key_use].
	SetKeyUse bool

	// Listen is host:port, or unix:PATH. "" is :443 [serving_cert_file.addr, insecure_addr, listen_socket_path].
	Listen string
	// CertFile and KeyFile are PEM, the certificate's chain leaf first; they are read again when they change
	// [serving_cert_file].
	CertFile, KeyFile string
	// Plaintext serves plain HTTP, for a proxy in front that has the certificate: on a loopback address or a UNIX
	// socket only, and without CertFile.
	Plaintext bool
	// AllowInsecureScheme makes URLs of http where a client came without TLS, to try things out; only with Plaintext
	// [allow_insecure_scheme].
	AllowInsecureScheme bool

	// LogRequests logs each request [log_requests].
	LogRequests bool
	// Keys returns the JWT authorities of the trust domain's bundle; required. It is called with each request. What
	// it returns is not modified.
	Keys func() []*types.JWTKey
	// Log may be nil.
	Log *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

const (
	defaultListen = ":443"
	unixScheme    = "unix:"
)

// Validate reports everything that is wrong with the configuration. It looks at nothing outside it.
func (c Config) Validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Keys == nil {
		wrong("no source of keys")
	}
	if len(c.Domains) == 0 && c.Issuer == "" {
		wrong("domains is missing: name those under which clients reach the discovery document, such as oidc.example.org")
	}
	for _, domain := range c.Domains {
		if _, err := parseDomain(domain); err != nil {
			wrong("domains: %w", err)
		}
	}
	for _, u := range []struct{ key, value string }{{"jwt_issuer", c.Issuer}, {"jwks_uri", c.JWKSURI}} {
		if u.value == "" {
			continue
		}
		if err := c.checkURL(u.value); err != nil {
			wrong("%s %q %w", u.key, u.value, err)
		}
	}
	if c.PathPrefix != "" && (!strings.HasPrefix(c.PathPrefix, "/") || strings.ContainsAny(c.PathPrefix, "?#%{}")) {
		wrong("server_path_prefix %q: want a plain path that begins with a slash, such as /oidc", c.PathPrefix)
	}
	errs = append(errs, c.checkListen()...)
	return errors.Join(errs...)
}

func (c Config) checkURL(value string) error {
	u, err := url.Parse(value)
	switch {
	case err != nil:
		return errors.New("is not a URL, such as https://oidc.example.org")
	case u.Scheme == "http" && !c.AllowInsecureScheme:
		return errors.New("is not of https: clients refuse it, unless allow_insecure_scheme is set to try things out")
	case u.Scheme != "https" && u.Scheme != "http", u.Host == "", u.Opaque != "":
		return errors.New("is not a URL of https with a host, such as https://oidc.example.org")
	case u.User != nil, u.RawQuery != "", u.ForceQuery, u.Fragment != "", strings.ContainsAny(u.Path, "{}"):
		return errors.New("has more than a host and a plain path (OpenID Connect Discovery 1.0, section 3)")
	}
	return nil
}

func (c Config) checkListen() (errs []error) {
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	socket, isSocket := strings.CutPrefix(c.listen(), unixScheme)
	host, _, err := net.SplitHostPort(c.listen())
	switch {
	case isSocket && !path.IsAbs(socket):
		wrong("listen %q: want unix: and an absolute path", c.Listen)
	case !isSocket && err != nil:
		wrong("listen %q: want host:port, such as :443, or unix: and a path", c.Listen)
	case c.Plaintext && !isSocket && !loopback(host):
		wrong("listen %q: plain HTTP is for loopback addresses, such as 127.0.0.1:8080, and UNIX sockets: keys that "+
			"travel unprotected can be replaced", c.Listen)
	}
	switch {
	case !c.Plaintext && (c.CertFile == "" || c.KeyFile == ""):
		wrong("a certificate is missing: set cert_file_path and key_file_path")
	case c.Plaintext && (c.CertFile != "" || c.KeyFile != ""):
		wrong("a certificate (cert_file_path, key_file_path) and plain HTTP exclude each other")
	}
	if c.AllowInsecureScheme && !c.Plaintext {
		wrong("allow_insecure_scheme is for plain HTTP only: remove it")
	}
	return errs
}

func (c Config) listen() string {
	if c.Listen == "" {
		return defaultListen
	}
	return c.Listen
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}
