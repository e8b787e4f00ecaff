package policy

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/sidecar/setting"
)

// Compile returns the policy of c; the error is Validate's, in the words of d.Name. It does no I/O: see [Reload].
func Compile(c Config, d Deps) (Policy, error) { return compile(c, d, false) }

// compile also serves Validate, which can't know whether there is an engine.
func compile(c Config, d Deps, anyEngine bool) (Policy, error) {
	if d.Name == nil {
		d.Name = func(key string) string { return key }
	}
	b := builder{c: c, d: d}
	b.errs = append(c.exclusions(d.Name), c.completeness(d.Name)...)
	s := &rules{deny: b.uris("deny_uris", c.DenyURIs, false, true), allow: b.allow(), reporter: reporter{d.Log},
		mend: d.Name("allow_uris"), mendDomain: d.Name("allow_trust_domains")}
	hashes := b.pins()
	if c.Rego.used() && !anyEngine {
		s.engine = b.engine()
		s.query = d.Name("query") + " " + printable(c.Rego.Query)
	}
	if err := errors.Join(b.errs...); err != nil {
		return nil, err
	}
	switch {
	case c.DisableAuthentication:
		return &anyone{d.Name("disable_authentication"), s.reporter}, nil
	case len(hashes) > 0:
		return &pins{hashes, s.reporter}, nil
	case c.AllowAll:
		s.all = d.Name("allow_all")
	case len(s.allow) == 0 && !c.Rego.used():
		s.all = byHostName // completeness made sure
	}
	return s, nil
}

// builder turns settings into rules, and collects what is wrong with them.
type builder struct {
	c    Config
	d    Deps
	errs []error
}

func (b *builder) text(key, value string) text { return text(b.d.Name(key) + " " + printable(value)) }

// add collects err.
func (b *builder) add(err error) {
	if err != nil {
		b.errs = append(b.errs, err)
	}
}

// allow returns the rules that allow, in the order they are asked in.
func (b *builder) allow() []rule {
	var out []rule
	out = b.names(out, "allow_cns", name{what: "CN", of: commonName}, b.c.AllowCNs)
	out = b.names(out, "allow_ous", name{what: "OU", of: units}, b.c.AllowOUs)
	out = b.names(out, "allow_dns_names", name{what: "DNS name", of: dnsNames}, b.c.AllowDNSNames)
	ips, err := join("allow_ips", b.c.AllowIPs, parseIP)
	b.add(err)
	for i, ip := range ips {
		out = append(out, address{b.text("allow_ips", b.c.AllowIPs[i]), confined(!b.c.Wide), ip})
	}
	if b.c.OwnTrustDomain {
		out = append(out, domain{text: "own trust domain"})
	}
	domains, err := join("allow_trust_domains", b.c.AllowTrustDomains, parseTrustDomain)
	b.add(err)
	for _, td := range domains {
		out = append(out, domain{b.text("allow_trust_domains", td.Name()), td})
	}
	return append(out, b.uris("allow_uris", b.c.AllowURIs, !b.c.Wide, !b.c.Wide)...)
}

func (b *builder) names(out []rule, key string, like name, values []string) []rule {
	values, err := join(key, values, func(s string) (string, error) {
		if s == "" {
			return "", fmt.Errorf("an empty name would admit every certificate that has no %s, so every ordinary SVID: give the name expected, or %s",
				like.what, b.d.Name("allow_all"))
		}
		return s, nil
	})
	b.add(err)
	for _, value := range values {
		like.text, like.confined, like.value = b.text(key, value), confined(!b.c.Wide), value
		out = append(out, like)
	}
	return out
}

// uris returns the rules of patterns. A strict one must be able to match.
func (b *builder) uris(key string, values []string, confined, strict bool) []rule {
	patterns, err := join(key, values, func(s string) (pattern, error) {
		p, err := parsePattern(s)
		if err == nil && strict {
			err = p.possible()
		}
		return p, err
	})
	b.add(err)
	var out []rule
	for _, p := range patterns {
		out = append(out, uri{text: b.text(key, p.text), setting: b.d.Name(key), pattern: p, confined: confined})
	}
	return out
}

func (b *builder) pins() []pin {
	hashes, err := join("pins", b.c.Pins, parsePin)
	b.add(err)
	for i := range hashes {
		hashes[i].text = b.text("pins", b.c.Pins[i])
	}
	return hashes
}

func (b *builder) engine() Engine {
	if b.d.Rego == nil {
		b.add(setting.Errorf("rego", given(b.c.Rego.Path), "this binary was built without OPA: use one that has it, or rules"))
		return nil
	}
	e, err := b.d.Rego(b.c.Rego)
	if err != nil {
		var known *setting.Error
		if !errors.As(err, &known) {
			err = setting.Errorf("rego", given(b.c.Rego.Path), "%w", err)
		}
		b.add(err)
	}
	return e
}

func parseIP(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, errors.New("not an IP address: give one such as 192.0.2.1 or 2001:db8::1")
	}
	return a.Unmap(), nil
}

func parseTrustDomain(s string) (spiffeid.TrustDomain, error) {
	td, err := spiffeid.TrustDomainFromString(s)
	if err == nil && s != td.Name() && s != td.IDString() {
		err = errors.New("names more than a trust domain: use a pattern for a path")
	}
	return td, err
}
