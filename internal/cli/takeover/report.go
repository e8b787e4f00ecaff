package takeover

import (
	"fmt"
	"io"

	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// Report tells what was taken, and what not and why. It is what -output json prints.
type Report struct {
	TrustDomain string   `json:"trust_domain"`
	DryRun      bool     `json:"dry_run"`
	Parts       []*Part  `json:"parts"`
	Notes       []string `json:"notes"`
}

// Part is about things of one kind.
type Part struct {
	// Kind is what they are, in the plural.
	Kind string `json:"kind"`
	// Taken is how many were not here, Updated how many were here and are now as they are there, Present how many needed
	// nothing.
	Taken   int    `json:"taken"`
	Updated int    `json:"updated"`
	Present int    `json:"present"`
	Skipped []Skip `json:"skipped"`
}

// Skip is one thing that was not taken.
type Skip struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
	// Failed says that this issuer refused it; what is skipped on purpose is not.
	Failed bool `json:"failed"`
}

func (r *Report) part(kind string) *Part {
	p := &Part{Kind: kind, Skipped: []Skip{}}
	r.Parts = append(r.Parts, p)
	return p
}

func (r *Report) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

func (p *Part) skip(name, format string, args ...any) {
	p.Skipped = append(p.Skipped, Skip{Name: name, Reason: fmt.Sprintf(format, args...)})
}

// result counts the answer about one thing, and says whether it was yes.
func (p *Part) result(name string, s *types.Status, count *int) bool {
	if s.GetCode() == int32(codes.OK) {
		*count++
		return true
	}
	p.Skipped = append(p.Skipped, Skip{Name: name, Reason: fmt.Sprintf("%s (%s)", s.GetMessage(), codes.Code(s.GetCode())), Failed: true})
	return false
}

// Failed counts what this issuer refused.
func (r *Report) Failed() int {
	n := 0
	for _, p := range r.Parts {
		for _, s := range p.Skipped {
			if s.Failed {
				n++
			}
		}
	}
	return n
}

// maxSkips is how many of a kind are told one by one.
const maxSkips = 50

// Print writes the report for people.
func (r *Report) Print(w io.Writer) {
	verb := "taken"
	if r.DryRun {
		verb = "to take"
	}
	for _, p := range r.Parts {
		fmt.Fprintf(w, "%-28s %5d %s, %d updated, %d here already, %d skipped\n", p.Kind, p.Taken, verb, p.Updated, p.Present, len(p.Skipped))
	}
	for _, p := range r.Parts {
		for i, s := range p.Skipped {
			if i == 0 {
				fmt.Fprintf(w, "\nSkipped %s:\n", p.Kind)
			}
			if i == maxSkips {
				fmt.Fprintf(w, "  and %d more: -output json has them all\n", len(p.Skipped)-maxSkips)
				break
			}
			fmt.Fprintf(w, "  %s: %s\n", s.Name, s.Reason)
		}
	}
	for i, n := range r.Notes {
		if i == 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "Note: %s\n", n)
	}
}
