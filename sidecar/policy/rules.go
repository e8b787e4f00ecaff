package policy

import (
	"context"
	"fmt"
)

// byHostName allows a server whose certificate is one for its host name, where there are no rules.
const byHostName = "host name"

// rules is a policy of names: denied if any of deny matches, else allowed if any of allow does, or the engine says so.
type rules struct {
	deny  []rule
	allow []rule
	// all, if it isn't empty, is the name of what allows every peer that is not denied.
	all    string
	engine Engine // may be nil
	query  string // the engine's, in the user's words
	// mend and mendDomain are the settings that would name one more peer, and one more trust domain.
	mend, mendDomain string
	reporter
}

// Decide implements Policy.
func (s *rules) Decide(ctx context.Context, r Request) Decision {
	return s.report(ctx, r, s.decide(ctx, newPeer(r)))
}

func (s *rules) decide(ctx context.Context, p *peer) Decision {
	if p.unknown() {
		return Decision{Reason: "the peer showed no certificate"}
	}
	if deny := first(s.deny, p); deny != nil {
		return Decision{Rule: deny.String(), Reason: fmt.Sprintf("%s matches %s", deny, p)}
	}
	if s.all != "" {
		return Decision{Allowed: true, Rule: s.all}
	}
	if allow := first(s.allow, p); allow != nil {
		return Decision{Allowed: true, Rule: allow.String()}
	}
	if s.engine == nil {
		return Decision{Reason: s.refusal(p)}
	}
	why := s.ask(ctx, p)
	switch {
	case why == "":
		return Decision{Allowed: true, Rule: s.query}
	case len(s.allow) > 0:
		why = s.refusal(p) + "; " + why
	default:
		why += " for " + p.String()
	}
	return Decision{Reason: why}
}

// ask asks the engine. The answer is why it does not allow the peer; empty if it does.
func (s *rules) ask(ctx context.Context, p *peer) string {
	switch ok, err := s.engine.Allow(ctx, p.Request); {
	case err != nil:
		return s.query + " " + err.Error()
	case !ok:
		return s.query + " is false"
	default:
		return ""
	}
}

func first(rules []rule, p *peer) rule {
	for _, r := range rules {
		if r.matches(p) {
			return r
		}
	}
	return nil
}

// refusal says why none of the rules that allow matches p, by the nearest.
func (s *rules) refusal(p *peer) string {
	if len(s.allow) == 0 {
		return fmt.Sprintf("there is no rule that could allow %s", p)
	}
	nearest, best := s.allow[0], -1
	for _, r := range s.allow {
		if n := r.near(p); n > best {
			nearest, best = r, n
		}
	}
	if len(s.allow) > 1 {
		return fmt.Sprintf("none of %d %s matches %s; nearest is %s: %s", len(s.allow), s.noun(), p, nearest, nearest.miss(p))
	}
	if own, ok := nearest.(domain); ok && own.value.IsZero() && !p.Peer.IsZero() && !p.Own.IsZero() {
		return fmt.Sprintf("%s is not of the own trust domain %s and no %s names it", p, p.Own.TrustDomain(), s.mend)
	}
	return fmt.Sprintf("%s does not match %s: %s", nearest, p, nearest.miss(p))
}

// noun is what the rules that allow are called together.
func (s *rules) noun() string {
	for _, r := range s.allow {
		if u, ok := r.(uri); !ok || u.setting != s.mend {
			return "rules"
		}
	}
	return s.mend
}

// NeedsConnection implements Connected: only an engine looks at more than names.
func (s *rules) NeedsConnection() bool { return s.engine != nil }

// Reload reads the engine's policy.
func (s *rules) Reload(ctx context.Context) error {
	if s.engine == nil {
		return nil
	}
	return s.engine.Reload(ctx)
}

// anyone is the policy of a listener that asks for no certificate.
type anyone struct {
	name string
	reporter
}

// Decide implements Policy.
func (a *anyone) Decide(ctx context.Context, r Request) Decision {
	return a.report(ctx, r, Decision{Allowed: true, Rule: a.name})
}
