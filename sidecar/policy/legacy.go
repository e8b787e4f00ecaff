package policy

import (
	"context"
	"errors"
	"fmt"
)

// AllowAll allows every verified peer, of any trust domain there is a bundle of.
// It does so under the name of rule.
func AllowAll(rule string) Policy { return allowAll(rule) }

type allowAll string

func (a allowAll) Decide(context.Context, Request) Decision {
	return Decision{Allowed: true, Rule: string(a)}
}

// OwnTrustDomain allows the peers of this end's own trust domain, and no
// federated one. The refusal names flag as the way to allow more.
func OwnTrustDomain(flag string) Policy { return ownTrustDomain(flag) }

type ownTrustDomain string

func (o ownTrustDomain) Decide(_ context.Context, r Request) Decision {
	own := r.Own.TrustDomain()
	if !own.IsZero() && r.Peer.MemberOf(own) {
		return Decision{Allowed: true, Rule: "own trust domain"}
	}
	return Decision{Reason: fmt.Sprintf("%s is not of the own trust domain %s and no %s names it", r.Peer, own, o)}
}

// Patterns allows the peers whose SPIFFE ID matches one of a list of patterns.
type Patterns struct {
	flag     string
	patterns []pattern
}

// CompilePatterns returns the policy of patterns, which flag introduces in messages.
// The error has a line for each pattern that is none, with flag's name.
func CompilePatterns(flag string, patterns []string) (*Patterns, error) {
	p := &Patterns{flag: flag}
	var errs []error
	for _, s := range patterns {
		compiled, err := parsePattern(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %q: %w", flag, s, err))
		}
		p.patterns = append(p.patterns, compiled)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return p, nil
}

// Decide implements Policy: the first pattern that matches allows the peer.
func (p *Patterns) Decide(_ context.Context, r Request) Decision {
	id := r.Peer.String()
	for _, pat := range p.patterns {
		if pat.matches(id) {
			return Decision{Allowed: true, Rule: p.flag + " " + pat.text}
		}
	}
	switch len(p.patterns) {
	case 0:
		return Decision{Reason: fmt.Sprintf("there is no %s that could match %s", p.flag, id)}
	case 1:
		return Decision{Reason: fmt.Sprintf("%s %s does not match %s", p.flag, p.patterns[0].text, id)}
	default:
		return Decision{Reason: fmt.Sprintf("none of %d %s matches %s, the last is %s",
			len(p.patterns), p.flag, id, p.patterns[len(p.patterns)-1].text)}
	}
}
