package explain

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/nodeagent/svidcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

// Agent is what matters of the agent.
type Agent struct {
	// ID is zero before the agent has joined.
	ID      spiffeid.ID
	Contact upstream.Contact
	Now     time.Time
}

// staleAfter is when an agent counts as out of contact: twice what an issuer lets
// pass without a word, and many polls.
const staleAfter = time.Minute

// Notes are what the operator should know beside the verdict, what matters most
// first.
func (c Case) Notes(a Agent) []string {
	notes := a.contact()
	for _, r := range c.Attested.Reports {
		if r.Err != nil {
			notes = append(notes, fmt.Sprintf("the %s attestor failed, and what it would find is missing: until it works the process is told to try again, not that it has no identity", r.Plugin))
		}
	}
	notes = append(notes, c.lacking()...)
	for _, near := range [][]svidcache.Near{c.Entries.Matches, c.Entries.Near} {
		for _, n := range near {
			notes = append(notes, loose(n.Entry)...)
		}
	}
	return append(notes, c.shared(a)...)
}

// shared tells which of the process's entries hang from an alias, by alias.
func (c Case) shared(a Agent) []string {
	var parents []spiffeid.ID
	entries := map[spiffeid.ID][]string{}
	for _, m := range c.Entries.Matches {
		p := m.Entry.ParentID
		if a.ID.IsZero() || p.IsZero() || p == a.ID {
			continue
		}
		if len(entries[p]) == 0 {
			parents = append(parents, p)
		}
		entries[p] = append(entries[p], m.Entry.ID)
	}
	var notes []string
	for _, p := range parents {
		have, it := "entry "+entries[p][0]+" has", "it"
		if n := len(entries[p]); n > 1 {
			have, it = fmt.Sprintf("%d of these entries have", n), "them"
		}
		notes = append(notes, fmt.Sprintf("%s the parent ID %s, which is not the agent's own: other agents may have %s, too", have, p, it))
	}
	return notes
}

// contact tells of an agent that doesn't know what the issuer knows.
func (a Agent) contact() []string {
	why := ""
	if a.Contact.Err != nil {
		why = ": " + upstream.Reason(a.Contact.Err)
	}
	switch c := a.Contact; {
	case c.Last.IsZero():
		return []string{fmt.Sprintf("the agent has not heard from its issuer at %s since it started%s", c.Address, why)}
	case a.Now.Sub(c.Last) > staleAfter:
		return []string{fmt.Sprintf("the agent has not heard from its issuer at %s for %s: what was changed since is not known here%s", c.Address, a.Now.Sub(c.Last).Round(time.Second), why)}
	}
	return nil
}

// lacking tells which near entries can't fit on this agent as it is configured.
func (c Case) lacking() []string {
	var notes []string
	tell := func(note string) {
		if !slices.Contains(notes, note) {
			notes = append(notes, note)
		}
	}
	for _, n := range c.Entries.Near {
		for _, s := range n.Missing {
			switch kind, _, _ := strings.Cut(s.Value, ":"); {
			case s.Type == socketType:
				tell(fmt.Sprintf("%s is given to those who call over that socket; whether this process does is not to be seen from here", s))
			case !c.attests(s.Type):
				tell(fmt.Sprintf("the agent has no %s attestor, and finds no selector such as %s: configure WorkloadAttestor %q", s.Type, s, s.Type))
			case s.Type == "unix" && (kind == "path" || kind == "sha256") && !c.has("unix", kind+":"):
				tell(fmt.Sprintf("the agent found no unix:%s of the process: that needs discover_workload_path = true, and an agent that runs as root or as the process's user", kind))
			}
		}
	}
	return notes
}

// socketType is the type of the selectors that per-workload sockets give.
const socketType = "lanyard"

// attests reports whether there is such an attestor; where it is not known which
// there are, there are all.
func (c Case) attests(name string) bool {
	return len(c.Attested.Reports) == 0 || slices.ContainsFunc(c.Attested.Reports, func(r workloadattest.Report) bool { return r.Plugin == name })
}

func (c Case) has(kind, prefix string) bool {
	return slices.ContainsFunc(c.Attested.Selectors, func(s registration.Selector) bool {
		return s.Type == kind && strings.HasPrefix(s.Value, prefix)
	})
}

// loose warns of an entry that goes by the executable alone: whoever may run that
// has the identity, be it another user.
func loose(e registration.Entry) []string {
	var file string
	for _, s := range e.Selectors {
		kind, value, _ := strings.Cut(s.Value, ":")
		switch {
		case s.Type != "unix":
			return nil // a container's, say
		case kind == "path":
			file = value
		case kind != "sha256":
			return nil // a user or a group
		case file == "":
			file = "a file of that sha256"
		}
	}
	if file == "" {
		return nil
	}
	note := fmt.Sprintf("entry %s goes by its executable alone: every user who can run %s has that identity; add a unix:uid selector", e.ID, file)
	if many := multiCall(path.Base(file)); many != "" {
		note += " and, as " + many + ", name a program of its own"
	}
	return []string{note}
}

// multiCall says why a program of that name is many programs; "" for others.
func multiCall(name string) string {
	switch name {
	case "lanyard":
		return "lanyard is every role and every client verb"
	case "busybox", "toybox", "coreutils":
		return name + " is many programs"
	case "sh", "bash", "dash", "zsh", "node", "java", "perl", "ruby", "deno", "bun":
		return name + " runs any program"
	}
	if strings.HasPrefix(name, "python") {
		return name + " runs any program"
	}
	return ""
}
