// Package policy owns the decision whether a peer may use a tunnel: pure
// functions of SPIFFE IDs and rules. It does not verify that a peer is who it
// says (internal/mtls does) and does no I/O.
package policy

import (
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Request is what a decision is about.
type Request struct {
	Own  spiffeid.ID // this end's SPIFFE ID
	Peer spiffeid.ID // the other end's, verified
}

// Decision is the answer. Both texts are for people and logs.
type Decision struct {
	Allowed bool
	// Rule is the rule that allowed the peer; empty if none did.
	Rule string
	// Reason says why the peer was refused, naming the rules; empty if it was
	// allowed.
	Reason string
}

// Policy decides about peers. It is immutable.
type Policy interface {
	Decide(Request) Decision
}

// AllowAll allows every verified peer, of any trust domain there is a bundle of.
// It does so under the name of rule.
func AllowAll(rule string) Policy { return allowAll(rule) }

type allowAll string

func (a allowAll) Decide(Request) Decision { return Decision{Allowed: true, Rule: string(a)} }

// OwnTrustDomain allows the peers of this end's own trust domain, and no
// federated one. The refusal names flag as the way to allow more.
func OwnTrustDomain(flag string) Policy { return ownTrustDomain(flag) }

type ownTrustDomain string

func (o ownTrustDomain) Decide(r Request) Decision {
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

// Compile returns the policy of patterns, which flag introduces in messages.
// The error has a line for each pattern that is none, with flag's name.
func Compile(flag string, patterns []string) (*Patterns, error) {
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
func (p *Patterns) Decide(r Request) Decision {
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
