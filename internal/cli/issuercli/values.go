package issuercli

import (
	"fmt"

	"github.com/spf13/pflag"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/cli/entryfile"
	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// requiredID reads a flag that must be a SPIFFE ID.
func requiredID(flag, value, what string) (*types.SPIFFEID, error) {
	if value == "" {
		return nil, cli.Usagef("-%s is missing: %s", flag, what)
	}
	return optionalID(flag, value)
}

// optionalID reads a flag that may be a SPIFFE ID; nil if it isn't given.
func optionalID(flag, value string) (*types.SPIFFEID, error) {
	if value == "" {
		return nil, nil
	}
	id, err := spiffeid.FromString(value)
	if err != nil {
		return nil, cli.Usagef("-%s %q is no SPIFFE ID: %v", flag, value, err)
	}
	return registration.IDProto(id), nil
}

// requiredTrustDomain reads a flag that must be a trust domain, bare or as spiffe://td.
func requiredTrustDomain(flag, value string) (spiffeid.TrustDomain, error) {
	if value == "" {
		return spiffeid.TrustDomain{}, cli.Usagef("-%s is missing: the name of the trust domain, like other.example", flag)
	}
	td, err := spiffeid.TrustDomainFromString(value)
	if err != nil {
		return spiffeid.TrustDomain{}, cli.Usagef("-%s %q is no trust domain: %v", flag, value, err)
	}
	return td, nil
}

func idString(id *types.SPIFFEID) string { return entryfile.IDString(id) }

// entryID reads a flag that must be the SPIFFE ID of an entry, or a template of one.
func entryID(flag, value, what string) (*types.SPIFFEID, error) {
	if value == "" {
		return nil, cli.Usagef("-%s is missing: %s", flag, what)
	}
	id, err := entryfile.ParseTemplate(value)
	if err != nil {
		return nil, cli.Usagef("-%s %q is no SPIFFE ID: %v", flag, value, err)
	}
	return id, nil
}

func selectors(values []string) ([]*types.Selector, error) {
	var sel []*types.Selector
	for _, v := range values {
		s, err := registration.ParseSelector(v)
		if err != nil {
			return nil, cli.Usagef("-selector: %v", err)
		}
		sel = append(sel, &types.Selector{Type: s.Type, Value: s.Value})
	}
	return sel, nil
}

// trustDomains reads -federatesWith, where SPIRE takes spiffe://td as well as td.
func trustDomains(values []string) ([]string, error) {
	var names []string
	for _, v := range values {
		td, err := spiffeid.TrustDomainFromString(v)
		if err != nil {
			return nil, cli.Usagef("-federatesWith %q is no trust domain: %v", v, err)
		}
		names = append(names, td.Name())
	}
	return names, nil
}

// seconds checks a lifetime given in seconds, which the API carries in 32 bits.
func seconds(flag string, n int) (int32, error) {
	if n < 0 || n > 1<<31-1 {
		return 0, cli.Usagef("-%s %d: want 0 to %d seconds", flag, n, 1<<31-1)
	}
	return int32(n), nil
}

// matchFlag adds one of SPIRE's flags that say how a filter matches.
func matchFlag(fs *pflag.FlagSet, c *cli.Choice, name, what string) {
	*c = cli.Choice{Value: "superset", Accepts: []string{"exact", "any", "superset", "subset"}}
	fs.Var(c, name, fmt.Sprintf("how -%s selects: %s", what, "exact the same set, any of it, a superset of it or a subset of it"))
}

func selectorMatch(values []string, on cli.Choice) (*types.SelectorMatch, error) {
	sel, err := selectors(values)
	if err != nil || len(sel) == 0 {
		return nil, err
	}
	behaviour := map[string]types.SelectorMatch_MatchBehavior{
		"exact": types.SelectorMatch_MATCH_EXACT, "any": types.SelectorMatch_MATCH_ANY,
		"superset": types.SelectorMatch_MATCH_SUPERSET, "subset": types.SelectorMatch_MATCH_SUBSET,
	}
	return &types.SelectorMatch{Selectors: sel, Match: behaviour[on.Value]}, nil
}

func federatesMatch(values []string, on cli.Choice) (*types.FederatesWithMatch, error) {
	names, err := trustDomains(values)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	behaviour := map[string]types.FederatesWithMatch_MatchBehavior{
		"exact": types.FederatesWithMatch_MATCH_EXACT, "any": types.FederatesWithMatch_MATCH_ANY,
		"superset": types.FederatesWithMatch_MATCH_SUPERSET, "subset": types.FederatesWithMatch_MATCH_SUBSET,
	}
	return &types.FederatesWithMatch{TrustDomains: names, Match: behaviour[on.Value]}, nil
}
