package policy

import (
	"context"
	"crypto/x509"
	"fmt"
	"strings"
)

// Explain tells how p decides about r: the decision, each rule that was tried with its outcome, and what would have to
// change. Without a certificate in r, names other than the SPIFFE ID count as unknown, and an engine is shown a certificate
// with the ID alone. ctx bounds an engine's time. The text ends in a newline.
func Explain(ctx context.Context, p Policy, r Request) string {
	e := &explanation{peer: newPeer(r)}
	if r.Certificate == nil && !r.Peer.IsZero() {
		e.peer.Certificate = &x509.Certificate{}
		e.peer.Certificate.URIs = append(e.peer.Certificate.URIs, r.Peer.URL())
		e.peer.assumed = true
	}
	switch p := p.(type) {
	case *rules:
		p.explain(ctx, e)
	case *pins:
		p.explain(e)
	default:
		e.decide(p.Decide(ctx, r))
		e.advise("no peer is asked for a certificate, so there is nothing to tell them apart by")
	}
	return e.String()
}

// explanation is the text in the making.
type explanation struct {
	peer     *peer
	decision string
	tried    []string
	advice   []string
}

// Outcomes of a rule, as wide as the widest.
const (
	match    = "match     "
	noMatch  = "no match  "
	unknown  = "unknown   "
	notAsked = "not asked "
)

func (e *explanation) decide(d Decision) {
	if d.Allowed {
		e.decision = "allowed by " + d.Rule
		return
	}
	e.decision = "refused: " + d.Reason
}

func (e *explanation) try(outcome, rule, why string) {
	line := outcome + " " + rule
	if why != "" {
		line += ": " + why
	}
	e.tried = append(e.tried, line)
}

func (e *explanation) advise(format string, args ...any) {
	e.advice = append(e.advice, fmt.Sprintf(format, args...))
}

func (e *explanation) String() string {
	var b strings.Builder
	line := func(what, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%-10s %s\n", what, value)
		}
	}
	r := e.peer.Request
	line("peer", e.peer.String())
	if !r.Own.IsZero() {
		line("this end", r.Own.String())
	}
	line("tunnel", strings.Trim(r.Tunnel+", "+r.Direction, ", "))
	line("decision", e.decision)
	for i, s := range e.tried {
		line([]string{"rules", ""}[min(i, 1)], s)
	}
	for i, s := range e.advice {
		line([]string{"to change", ""}[min(i, 1)], s)
	}
	return b.String()
}

// rules puts the outcome of each rule into e, and returns those that match.
func (e *explanation) rules(rules []rule) []string {
	var matching []string
	for _, r := range rules {
		switch {
		case r.matches(e.peer):
			matching = append(matching, r.String())
			e.try(match, r.String(), "")
		case e.byName(r):
			e.try(unknown, r.String(), "depends on a name in the certificate")
		default:
			e.try(noMatch, r.String(), r.miss(e.peer))
		}
	}
	return matching
}

// byName reports whether r depends on names that only a certificate has, of which none is there.
func (e *explanation) byName(r rule) bool {
	if !e.peer.assumed {
		return false
	}
	switch r := r.(type) {
	case name:
		return r.inside(e.peer)
	case address:
		return r.inside(e.peer)
	}
	return false
}

func (s *rules) explain(ctx context.Context, e *explanation) {
	d := s.decide(ctx, e.peer)
	e.decide(d)
	if e.peer.unknown() {
		e.advise("the peer has to show a certificate")
		return
	}
	denied := e.rules(s.deny)
	allowed := e.rules(s.allow)
	if s.all != "" {
		why := "every peer with a valid certificate"
		if s.all == byHostName {
			why = "a valid certificate for it is enough, as there is no rule"
		}
		e.try(match, s.all, why)
		allowed = append(allowed, s.all)
	}
	switch {
	case s.engine == nil:
	case len(denied) > 0 || len(allowed) > 0:
		e.try(notAsked, s.query, "it is asked only if nothing else decides")
	case d.Allowed:
		e.try(match, s.query, "true")
		allowed = append(allowed, s.query)
	default:
		e.try(noMatch, s.query, "not true")
	}
	s.advise(e, denied, allowed)
}

// advise says what would turn the decision round.
func (s *rules) advise(e *explanation, denied, allowed []string) {
	id := e.peer.Peer
	switch {
	case len(denied) > 0 && len(allowed) > 0:
		e.advise("to allow it: take away %s; %s then allows it", strings.Join(denied, " and "), allowed[0])
	case len(denied) > 0:
		e.advise("to allow it: take away %s, and add a rule that allows it", strings.Join(denied, " and "))
	case s.all == byHostName:
		e.advise("to refuse it: add a rule that says who is expected")
	case len(allowed) > 0:
		e.advise("to refuse it: take away %s, or add a rule to deny it", strings.Join(allowed, " and "))
	case !id.IsZero():
		e.advise("to allow it: add %s %s, or let a pattern match it", s.mend, id)
		if !id.MemberOf(e.peer.Own.TrustDomain()) {
			e.advise("to allow all of its trust domain: add %s %s", s.mendDomain, id.TrustDomain())
		}
		for _, r := range s.allow {
			if e.byName(r) {
				e.advise("unless its certificate has a name that %s wants", r)
			}
		}
	default:
		e.advise("to allow it: add a rule that names one of the certificate's names")
	}
}

func (p *pins) explain(e *explanation) {
	if e.peer.assumed {
		e.peer.Certificate = nil
	}
	e.decide(p.decide(e.peer.Request))
	if e.peer.Certificate == nil {
		e.decision = "depends on the peer's public key: pins look at nothing else"
	}
	for _, pin := range p.pins {
		switch {
		case e.peer.Certificate == nil:
			e.try(unknown, pin.String(), "")
		case pin.matches(e.peer.Certificate.RawSubjectPublicKeyInfo):
			e.try(match, pin.String(), "")
		default:
			e.try(noMatch, pin.String(), "")
		}
	}
	if e.peer.Certificate != nil {
		e.advise("a pin of the peer's public key is %s", PinOf(e.peer.Certificate.RawSubjectPublicKeyInfo))
	}
}
