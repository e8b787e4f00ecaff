// Package explain owns the words in which the agent tells its node's operator why
// a process has an identity or none: the same in the log, where a caller is
// refused, and where the operator asks. It finds nothing out itself, and nothing
// of it is for the process concerned.
package explain

import (
	"fmt"
	"strings"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/nodeagent/svidcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

// Case is what is known of one process.
type Case struct {
	Attested workloadattest.Result
	Entries  svidcache.Explanation
}

// Verdict says in a line whether the process has an identity and, if it has none,
// what keeps it from one.
func (c Case) Verdict() string {
	served := c.served()
	switch incomplete := c.Attested.Incomplete(); {
	case len(served) == 1:
		return fmt.Sprintf("it has the identity %s (entry %s)", served[0].Entry.Name(), served[0].Entry.ID)
	case len(served) > 1:
		return fmt.Sprintf("it has %d identities, %s (entry %s) is the default", len(served), served[0].Entry.Name(), served[0].Entry.ID)
	case incomplete != nil:
		return "it was not attested in full, and is told to try again: " + oneLine(incomplete)
	case len(c.Entries.Matches) > 0:
		m := c.Entries.Matches[0]
		return fmt.Sprintf("entry %s (%s) fits and is not served: %s", m.Entry.ID, m.Entry.Name(), m.Withheld)
	case c.Entries.Entries == 0:
		return "the issuer has no entry for this agent: an entry needs the agent's ID, or that of an alias of it, as its parent ID"
	case len(c.Entries.Near) == 0:
		return fmt.Sprintf("none of %s is for workloads", count(c.Entries.Entries))
	}
	n := c.Entries.Near[0]
	return fmt.Sprintf("none of %s fits: the nearest, %s (entry %s), needs %s too", count(c.Entries.Entries), n.Entry.Name(), n.Entry.ID, Join(n.Missing))
}

// served are the matches that nothing keeps from being served.
func (c Case) served() []svidcache.Near {
	var served []svidcache.Near
	for _, m := range c.Entries.Matches {
		if m.Withheld == "" {
			served = append(served, m)
		}
	}
	return served
}

func count(entries int) string {
	if entries == 1 {
		return "1 entry"
	}
	return fmt.Sprintf("%d entries", entries)
}

// Hidden stands for the value of an environment variable that no entry names.
const Hidden = "(hidden)"

// Visible returns the process's selectors as they may be told and logged. A
// variable of its environment may be a secret: its value is left out unless an
// entry names it, and so the issuer and its operators know it already.
func (c Case) Visible() []registration.Selector {
	named := make(map[registration.Selector]bool)
	for _, near := range [][]svidcache.Near{c.Entries.Matches, c.Entries.Near} {
		for _, n := range near {
			for _, s := range n.Entry.Selectors {
				named[s] = true
			}
		}
	}
	visible := make([]registration.Selector, len(c.Attested.Selectors))
	for i, s := range c.Attested.Selectors {
		visible[i] = s
		if text, isEnv := strings.CutPrefix(s.Value, "env:"); isEnv && !named[s] {
			key, _, _ := strings.Cut(text, "=")
			visible[i].Value = "env:" + key + "=" + Hidden
		}
	}
	return visible
}

// Join writes selectors in a line.
func Join(selectors []registration.Selector) string {
	texts := make([]string, len(selectors))
	for i, s := range selectors {
		texts[i] = s.String()
	}
	return strings.Join(texts, " ")
}

// oneLine is for errors that join several.
func oneLine(err error) string {
	return strings.Join(strings.Split(strings.TrimSpace(err.Error()), "\n"), "; ")
}
