package sds

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/template"
	"unicode"
	"unicode/utf8"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/configs/envoy"
)

// BootstrapOptions are the answers that an Envoy configuration is made from. At
// least one of Inbound and Outbound is needed.
type BootstrapOptions struct {
	// NodeID and Cluster are how Envoy names itself; empty is "envoy" and
	// "lanyard". NodeID shows in the logs of the SDS server.
	NodeID, Cluster string
	// SDSSocket is the absolute path of the UNIX socket that serves the secrets:
	// the agent's, or that of lanyard sds.
	SDSSocket string
	// StateOfTheWorld takes secrets by StreamSecrets instead of DeltaSecrets, as
	// SPIRE's agent needs it. Secrets are then never removed from Envoy.
	StateOfTheWorld bool
	// PlainTrustedCA does without Envoy's SPIFFE certificate validator.
	PlainTrustedCA bool
	// SVIDName and BundleName are the secrets to use; empty is "default" and
	// "ROOTCA". A peer of another trust domain needs "ALL", or "spiffe://" and
	// that domain, for the latter.
	SVIDName, BundleName string
	// Admin is the loopback IP:PORT of Envoy's admin interface; empty is none.
	Admin string
	// Inbound takes mutual TLS and hands plain bytes to an application.
	Inbound *Leg
	// Outbound takes plain bytes from an application and makes mutual TLS of them.
	Outbound *Leg
}

// Leg is one direction: what comes in at Listen goes out to Target.
type Leg struct {
	// Listen is IP:PORT or unix:/PATH.
	Listen string
	// Target is HOST:PORT or unix:/PATH.
	Target string
	// Peers are the SPIFFE IDs that the other end of the TLS connection may have.
	Peers []spiffeid.ID
	// TrustDomain lets the other end have any SPIFFE ID of it. It goes without
	// Peers only: a list is not widened by accident.
	TrustDomain spiffeid.TrustDomain
}

// Bootstrap writes an Envoy bootstrap configuration, version 3, as YAML. All
// that is wrong with opts is reported at once, and nothing is written then.
func Bootstrap(w io.Writer, opts BootstrapOptions) error {
	view, err := opts.view()
	if err != nil {
		return err
	}
	quote := template.FuncMap{"quote": quoteYAML}
	page, err := template.New("bootstrap").Option("missingkey=error").Funcs(quote).Parse(envoy.Bootstrap)
	if err != nil {
		return fmt.Errorf("envoy bootstrap template: %w", err)
	}
	return page.Execute(w, view)
}

// What the template sees: values that are checked, and take no more thought.
type (
	bootstrapView struct {
		NodeID, Cluster   string
		PlainTrustedCA    bool
		SDS               address
		Admin             *address
		Inbound, Outbound *legView
	}
	legView struct {
		Listen, Target address
		TargetType     string
		TLS            tlsView
	}
	tlsView struct {
		Delta                bool
		SVIDName, BundleName string
		Peers                []matcherView
	}
	matcherView struct{ Kind, Value string }
)

func (o BootstrapOptions) view() (bootstrapView, error) {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf("envoy bootstrap: "+format, args...)) }
	text := func(what, value, fallback string) string {
		if value == "" {
			value = fallback
		}
		if err := checkText(value); err != nil {
			fail("%s: %w", what, err)
		}
		return value
	}
	v := bootstrapView{
		NodeID:         text("node id", o.NodeID, "envoy"),
		Cluster:        text("cluster", o.Cluster, "lanyard"),
		PlainTrustedCA: o.PlainTrustedCA,
		SDS:            address{Path: o.SDSSocket},
	}
	if err := checkSocketPath(o.SDSSocket); err != nil {
		fail("sds socket: %w", err)
	}
	if o.Admin != "" {
		admin, err := parseAddress(o.Admin)
		switch {
		case err != nil:
			fail("admin: %w", err)
		case !admin.loopback():
			fail("admin %q: use a loopback address, such as 127.0.0.1:9901; whoever can connect can stop Envoy", o.Admin)
		}
		v.Admin = &admin
	}
	if o.Inbound == nil && o.Outbound == nil {
		fail("neither inbound nor outbound: give at least one")
	}
	secrets := tlsView{
		Delta:      !o.StateOfTheWorld,
		SVIDName:   text("svid name", o.SVIDName, DefaultSVIDName),
		BundleName: text("bundle name", o.BundleName, DefaultBundleName),
	}
	for _, leg := range []struct {
		what string
		in   *Leg
		out  **legView
	}{{"inbound", o.Inbound, &v.Inbound}, {"outbound", o.Outbound, &v.Outbound}} {
		if leg.in == nil {
			continue
		}
		made, err := leg.in.view(secrets)
		if err != nil {
			fail("%s: %w", leg.what, err)
		}
		*leg.out = &made
	}
	return v, errors.Join(errs...)
}

func (l Leg) view(secrets tlsView) (legView, error) {
	listen, listenErr := parseAddress(l.Listen)
	if listenErr == nil && !listen.numeric() {
		listenErr = fmt.Errorf("%q: use an IP address to listen on", l.Listen)
	}
	target, targetErr := parseAddress(l.Target)
	peers, peersErr := l.matchers()
	v := legView{Listen: listen, Target: target, TargetType: "STATIC", TLS: secrets}
	if !target.numeric() {
		v.TargetType = "STRICT_DNS"
	}
	v.TLS.Peers = peers
	return v, errors.Join(prefix("listen", listenErr), prefix("target", targetErr), prefix("peers", peersErr))
}

// matchers returns what a peer's URI SAN has to match one of. The trust domain's
// has the slash at its end: one.test must not stand for one.test.example.
func (l Leg) matchers() ([]matcherView, error) {
	switch {
	case len(l.Peers) == 0 && l.TrustDomain.IsZero():
		return nil, errors.New("give SPIFFE IDs or a trust domain: nobody is accepted unnamed")
	case len(l.Peers) > 0 && !l.TrustDomain.IsZero():
		return nil, fmt.Errorf("give SPIFFE IDs or trust domain %s, not both: the domain would include them", l.TrustDomain)
	case !l.TrustDomain.IsZero():
		return []matcherView{{"prefix", l.TrustDomain.IDString() + "/"}}, nil
	}
	var out []matcherView
	for _, id := range l.Peers {
		if id.IsZero() || id.Path() == "" {
			return nil, fmt.Errorf("%q is not a workload's SPIFFE ID: it needs a trust domain and a path", id)
		}
		out = append(out, matcherView{"exact", id.String()})
	}
	return out, nil
}

func prefix(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// quoteYAML makes a double-quoted YAML scalar of s, which is the form of a JSON
// string (YAML 1.2, section 7.3.1).
func quoteYAML(s string) (string, error) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return "", err
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// checkText accepts what a person would name a thing.
func checkText(s string) error {
	switch {
	case s == "":
		return errors.New("is empty")
	case !utf8.ValidString(s) || strings.ContainsFunc(s, unprintable):
		return fmt.Errorf("%q: use printable characters only", abbreviate(s))
	case len(s) > maxNameBytes:
		return fmt.Errorf("%q is %d bytes long, the limit is %d", abbreviate(s), len(s), maxNameBytes)
	}
	return nil
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// checkSocketPath accepts an absolute path that fits into a socket's address.
func checkSocketPath(path string) error {
	switch {
	case checkText(path) != nil:
		return checkText(path)
	case !filepath.IsAbs(path):
		return fmt.Errorf("%q: give an absolute path", path)
	case strings.HasSuffix(path, "/"):
		return fmt.Errorf("%q is a directory: give the path of a socket", path)
	case len(path) > 107: // sockaddr_un, unix(7)
		return fmt.Errorf("%q is %d bytes long, the kernel takes at most 107", abbreviate(path), len(path))
	}
	return nil
}
