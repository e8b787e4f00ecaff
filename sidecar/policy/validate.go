package policy

import (
	"errors"
	"strings"

	"github.com/lanyard-mtls/lanyard/sidecar/setting"
)

// Validate returns everything that is wrong with c as joined *setting.Error, in the words of the keys.
func (c Config) Validate() error {
	_, err := compile(c, Deps{}, true)
	return err
}

// used are the keys that c gives a value, in the order of the documentation.
func (c Config) used() []string {
	var keys []string
	for _, k := range []struct {
		key  string
		used bool
	}{
		{"allow_all", c.AllowAll}, {"disable_authentication", c.DisableAuthentication},
		{"allow_cns", len(c.AllowCNs) > 0}, {"allow_ous", len(c.AllowOUs) > 0}, {"allow_dns_names", len(c.AllowDNSNames) > 0},
		{"allow_ips", len(c.AllowIPs) > 0}, {"own_trust_domain", c.OwnTrustDomain}, {"allow_trust_domains", len(c.AllowTrustDomains) > 0},
		{"allow_uris", len(c.AllowURIs) > 0}, {"rego", c.Rego.used()},
		{"pins", len(c.Pins) > 0}, {"deny_uris", len(c.DenyURIs) > 0},
	} {
		if k.used {
			keys = append(keys, k.key)
		}
	}
	return keys
}

// alone are the keys that stand alone, with those they go with all the same.
func alone() []struct{ key, with string } {
	return []struct{ key, with string }{{"disable_authentication", ""}, {"pins", ""}, {"allow_all", "deny_uris"}}
}

// exclusions returns an error for each key that stands alone and doesn't. A pair is told once.
func (c Config) exclusions(name func(string) string) []error {
	used := c.used()
	var errs []error
	told := map[string]bool{}
	for _, a := range alone() {
		var others []string
		found := false
		for _, key := range used {
			switch key {
			case a.key:
				found = true
			case a.with:
			default:
				if !told[key] {
					others = append(others, name(key))
				}
			}
		}
		if told[a.key] = found; found && len(others) > 0 {
			errs = append(errs, setting.Errorf(a.key, "", "excludes %s: drop one or the other", strings.Join(others, ", ")))
		}
	}
	return errs
}

// completeness returns the errors about what is missing.
func (c Config) completeness(name func(string) string) []error {
	var errs []error
	if c.Rego.Path != "" && c.Rego.Query == "" {
		errs = append(errs, setting.Errorf("query", "", "is missing: %s %s needs one, such as data.lanyard.allow", name("rego"), given(c.Rego.Path)))
	}
	if c.Rego.Path == "" && c.Rego.Query != "" {
		errs = append(errs, setting.Errorf("rego", "", "is missing: %s %s needs the policy's file or bundle", name("query"), given(c.Rego.Query)))
	}
	if c.Rego.Timeout < 0 {
		errs = append(errs, setting.Errorf("query", given(c.Rego.Query), "its time limit is %s: it must be more than 0", c.Rego.Timeout))
	}
	allows := false
	for _, key := range c.used() {
		allows = allows || key != "deny_uris"
	}
	switch {
	case c.Direction == Outbound:
		if c.AllowAll {
			errs = append(errs, setting.Errorf("allow_all", "", "an outbound tunnel names whom it expects: give %s PATTERN, or %s",
				name("allow_uris"), name("own_trust_domain")))
		}
		if c.DisableAuthentication {
			errs = append(errs, setting.Errorf("disable_authentication", "", "an outbound tunnel always authenticates the server: to show no certificate, say so for its identity"))
		}
		if !allows && !c.HostName {
			errs = append(errs, setting.Errorf("allow_uris", "", "is missing: an outbound tunnel names whom it expects: give a pattern (such as spiffe://TRUST-DOMAIN/web), or %s",
				name("own_trust_domain")))
		}
	case c.Direction != Inbound && c.Direction != "":
		errs = append(errs, setting.Errorf("direction", given(c.Direction), "unknown: give %s or %s", Inbound, Outbound))
	case !allows:
		errs = append(errs, setting.Errorf("allow_uris", "", "is missing, so nobody may connect: give a pattern (such as spiffe://TRUST-DOMAIN/**) or %s", name("allow_all")))
	}
	return errs
}

// join puts errors of one setting's values together.
func join[T any](key string, values []string, parse func(string) (T, error)) ([]T, error) {
	var out []T
	var errs []error
	for _, value := range values {
		v, err := parse(value)
		if err != nil {
			errs = append(errs, setting.Errorf(key, given(value), "%w", err))
			continue
		}
		out = append(out, v)
	}
	return out, errors.Join(errs...)
}

// given is a value as a message shows it.
func given(value string) string {
	if value == "" {
		return `""`
	}
	return printable(value)
}
