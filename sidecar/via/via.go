// Package via owns the way out through a proxy: HTTP CONNECT (RFC 9110, section 9.3.6) and SOCKS5 (RFC 1928, 1929). It reaches the proxy by
// what it is given and hands that same connection on; it encrypts nothing, so the proxy's password crosses the network in the clear.
package via

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar/setting"
)

// Proxy is what connections to a target go through. Nothing shows its password.
type Proxy struct {
	scheme  string // http, socks5 or socks5h
	address string // HOST:PORT
	user    string // empty: no credentials
	pass    string
}

// defaultPorts are those that ghostunnel dials.
var defaultPorts = map[string]string{"http": "8080", "socks5": "1080", "socks5h": "1080"}

const forms = "http://[USER:PASSWORD@]HOST[:PORT], socks5://… or socks5h://…"

// Parse reads http://[USER:PASSWORD@]HOST[:PORT], socks5:// or socks5h://; the port is 8080 or 1080 if none is given. With both kinds of
// SOCKS5 the proxy resolves the target's name. Its error is a *setting.Error about key, without the password.
func Parse(key, s string) (*Proxy, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, setting.Errorf(key, "", "not a URL: give %s", forms) // err has the password in it
	}
	shown := (&url.URL{Scheme: u.Scheme, Host: u.Host}).String()
	port, known := defaultPorts[u.Scheme]
	switch {
	case u.Scheme == "https":
		return nil, setting.Errorf(key, shown, "TLS to a proxy is not supported: give http://, what goes through it is mutual TLS anyway, or socks5://")
	case !known:
		return nil, setting.Errorf(key, "", "not a proxy: give %s", forms)
	case u.Hostname() == "":
		return nil, setting.Errorf(key, shown, "the host is missing: give %s", forms)
	case u.Opaque != "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return nil, setting.Errorf(key, shown, "has something behind the port: give %s", forms)
	}
	if given := u.Port(); given != "" {
		port = given
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return nil, setting.Errorf(key, shown, "%q is not a port: give a number from 1 to 65535", port)
	}
	p := &Proxy{scheme: u.Scheme, address: net.JoinHostPort(u.Hostname(), port), user: u.User.Username()}
	p.pass, _ = u.User.Password()
	switch {
	case p.user == "" && p.pass != "":
		return nil, setting.Errorf(key, shown, "a password without a user: give USER:PASSWORD@")
	case p.scheme == "http" && strings.Contains(p.user, ":"):
		return nil, setting.Errorf(key, shown, "a user's name with a colon can't be told to an HTTP proxy (RFC 7617, section 2)")
	case p.scheme != "http" && (len(p.user) > maxField || len(p.pass) > maxField):
		return nil, setting.Errorf(key, shown, "SOCKS5 takes users and passwords of up to %d bytes (RFC 1929, section 2)", maxField)
	}
	return p, nil
}

// String returns the proxy's URL without the password.
func (p *Proxy) String() string {
	u := url.URL{Scheme: p.scheme, Host: p.address}
	if p.user != "" {
		u.User = url.User(p.user)
	}
	return u.String()
}

// GoString keeps the password from %#v.
func (p *Proxy) GoString() string { return p.String() }

// Address returns the proxy's HOST:PORT.
func (p *Proxy) Address() string { return p.address }

// DialFunc connects, as net.Dialer.DialContext does.
type DialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// Dial connects to target, HOST:PORT, through p, which it reaches by dial, until ctx ends. It returns the connection that dial made, without
// a deadline; nothing that follows the proxy's answer has been read from it, and who connects must speak first.
func (p *Proxy) Dial(ctx context.Context, dial DialFunc, target string) (net.Conn, error) {
	to, err := parseTarget(ctx, target)
	if err != nil {
		return nil, err
	}
	c, err := dial(ctx, "tcp", p.address)
	if err != nil {
		return nil, fmt.Errorf("proxy %s: %w", p, err)
	}
	if err := p.negotiate(ctx, c, to); err != nil {
		_ = c.Close() // half way into a protocol: of no use to anybody
		return nil, fmt.Errorf("proxy %s: %w", p, err)
	}
	return c, nil
}

// negotiate asks for to until ctx ends.
func (p *Proxy) negotiate(ctx context.Context, c net.Conn, to destination) error {
	past := time.Unix(1, 0)
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(past) })
	var err error
	if p.scheme == "http" {
		err = p.connectHTTP(c, to)
	} else {
		err = p.connectSOCKS(c, to)
	}
	if !stop() {
		return fmt.Errorf("no answer for %s: %w", to, context.Cause(ctx))
	}
	return err
}

// destination is what a proxy is asked for.
type destination struct {
	host string
	port uint16
}

func (d destination) String() string { return net.JoinHostPort(d.host, strconv.Itoa(int(d.port))) }

func parseTarget(ctx context.Context, target string) (destination, error) {
	host, port, err := net.SplitHostPort(target)
	if err != nil || host == "" || strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune("/@?#[]", r) }) {
		return destination{}, fmt.Errorf("target %q can't be asked of a proxy: give HOST:PORT", target)
	}
	n, err := net.DefaultResolver.LookupPort(ctx, "tcp", port)
	if err != nil || n == 0 {
		return destination{}, fmt.Errorf("target %q can't be asked of a proxy: give a port from 1 to 65535", target)
	}
	return destination{host, uint16(n)}, nil
}

// basic is the credentials as RFC 7617 has them.
func (p *Proxy) basic() string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(p.user+":"+p.pass))
}
