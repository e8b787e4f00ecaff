package agentcli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentadminv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// printExplanation writes what an operator wants to know, in the order in which they ask: which process is it, has it an
// identity, what is it known by, what is missing, what to type next.
func printExplanation(w io.Writer, x *agentadminv1.ExplainResponse, now time.Time) {
	p := x.GetProcess()
	fmt.Fprintf(w, "Process %d", p.GetPid())
	if p.GetExecutable() != "" {
		fmt.Fprintf(w, ", %s", p.Executable)
	}
	fmt.Fprintf(w, ", uid %d, gid %d", p.GetUid(), p.GetGid())
	if p.GetStartedAt() != 0 {
		fmt.Fprintf(w, ", started %s ago", age(now.Sub(time.Unix(p.StartedAt, 0))))
	}
	if id := p.GetContainerId(); id != "" {
		fmt.Fprintf(w, ", in container %.12s", id)
	}
	fmt.Fprintf(w, ":\n%s.\n", x.GetVerdict())

	fmt.Fprintf(w, "\nAttested by\n")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, a := range x.GetAttestors() {
		took := (time.Duration(a.Microseconds) * time.Microsecond).Round(10 * time.Microsecond)
		found := fmt.Sprintf("%d selectors", a.Selectors)
		switch {
		case a.Error != "":
			found = "failed: " + a.Error
		case a.Selectors == 0:
			found = "not one of its processes"
		case a.Selectors == 1:
			found = "1 selector"
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\n", a.Name, took, found)
	}
	t.Flush()
	fmt.Fprintf(w, "\nSelectors\n")
	for _, s := range x.GetSelectors() {
		fmt.Fprintf(w, "  %s\n", selectorText(s))
	}
	printMatches(w, x.GetMatches())
	printNear(w, x.GetNear())
	if len(x.GetNotes()) > 0 {
		fmt.Fprintf(w, "\nTo know\n")
		for _, n := range x.Notes {
			fmt.Fprintf(w, "  - %s\n", n)
		}
	}
	printNext(w, x)
}

func printMatches(w io.Writer, matches []*agentadminv1.ExplainResponse_Entry) {
	for _, heading := range []string{"Identities, the default first", "Not served though they fit"} {
		told := false
		for _, e := range matches {
			if (e.Withheld != "") != strings.HasPrefix(heading, "Not") {
				continue
			}
			if !told {
				fmt.Fprintf(w, "\n%s\n", heading)
				told = true
			}
			fmt.Fprintf(w, "  %s\n    entry %s", e.SpiffeId, e.Id)
			if e.Hint != "" {
				fmt.Fprintf(w, ", hint %q", e.Hint)
			}
			if how := e.State + e.Withheld; how != "" {
				fmt.Fprintf(w, ", %s", how)
			}
			fmt.Fprintf(w, "\n    by %s\n", joinSelectors(e.Selectors))
		}
	}
}

func printNear(w io.Writer, near []*agentadminv1.ExplainResponse_Entry) {
	if len(near) == 0 {
		return
	}
	fmt.Fprintf(w, "\nNearest entries that don't fit\n")
	for _, e := range near {
		fmt.Fprintf(w, "  %s\n    entry %s\n", e.SpiffeId, e.Id)
		has := slices.DeleteFunc(slices.Clone(e.Selectors), func(s *types.Selector) bool {
			return slices.ContainsFunc(e.Missing, func(m *types.Selector) bool { return m.Type == s.Type && m.Value == s.Value })
		})
		if len(has) > 0 {
			fmt.Fprintf(w, "    has    %s\n", joinSelectors(has))
		}
		fmt.Fprintf(w, "    lacks  %s\n", joinSelectors(e.Missing))
	}
}

// printNext writes the command that would give the process an identity, where it has none.
func printNext(w io.Writer, x *agentadminv1.ExplainResponse) {
	if slices.ContainsFunc(x.GetMatches(), func(e *agentadminv1.ExplainResponse_Entry) bool { return e.Withheld == "" }) || x.GetParent() == nil {
		return
	}
	fmt.Fprintf(w, "\nTo give it an identity, choose a name and leave out the selectors that say too much\n")
	fmt.Fprintf(w, "  lanyard issuer entry create -parentID %s -spiffeID spiffe://%s/NAME", idString(x.Parent), x.Parent.TrustDomain)
	for _, s := range telling(x.GetSelectors()) {
		fmt.Fprintf(w, " \\\n    -selector %s", shellQuote(selectorText(s)))
	}
	fmt.Fprintln(w)
}

// telling are the selectors that an entry for the process would likely have: what its orchestrator calls it, or else its user
// and executable.
func telling(selectors []*types.Selector) []*types.Selector {
	for _, prefixes := range [][]string{
		{"k8s:ns:", "k8s:sa:"},
		{"docker:label:", "docker:name:"},
		{"systemd:id:"},
	} {
		var found []*types.Selector
		for _, s := range selectors {
			if slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(selectorText(s), p) }) {
				found = append(found, s)
			}
		}
		if len(found) > 0 {
			return found
		}
	}
	return slices.DeleteFunc(slices.Clone(selectors), func(s *types.Selector) bool {
		return s.Type != "unix" || !strings.HasPrefix(s.Value, "uid:") && !strings.HasPrefix(s.Value, "path:")
	})
}

func selectorText(s *types.Selector) string { return s.GetType() + ":" + s.GetValue() }

func joinSelectors(selectors []*types.Selector) string {
	texts := make([]string, len(selectors))
	for i, s := range selectors {
		texts[i] = selectorText(s)
	}
	return strings.Join(texts, " ")
}

// shellQuote writes s so that a POSIX shell reads it as one word.
func shellQuote(s string) string {
	plain := func(r rune) bool {
		return r == '_' || r == '-' || r == '.' || r == '/' || r == ':' || r == '=' || r == '@' || r == ',' || r == '+' ||
			'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// age is d in words of one or two units.
func age(d time.Duration) string {
	switch d = max(d, 0).Round(time.Second); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%d days", d/(24*time.Hour))
}
