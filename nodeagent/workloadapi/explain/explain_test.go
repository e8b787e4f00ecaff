package explain

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/nodeagent/svidcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

func selectors(texts ...string) []registration.Selector {
	var sel []registration.Selector
	for _, text := range texts {
		kind, value, _ := strings.Cut(text, ":")
		sel = append(sel, registration.Selector{Type: kind, Value: value})
	}
	return sel
}

func near(id string, missing ...string) svidcache.Near {
	return svidcache.Near{
		Entry:   registration.Entry{ID: id, SPIFFEID: spiffeid.RequireFromString("spiffe://example.org/" + id), Selectors: selectors(missing...)},
		Missing: selectors(missing...),
	}
}

func withheld(id, why string) svidcache.Near {
	n := near(id)
	n.Withheld = why
	return n
}

func TestVerdict(t *testing.T) {
	failed := workloadattest.Result{Reports: []workloadattest.Report{{Plugin: "docker", Err: errors.New("daemon is away\nreally")}}}
	for name, test := range map[string]struct {
		Case
		want string
	}{
		"one":                            {Case{Entries: svidcache.Explanation{Matches: []svidcache.Near{near("web")}, Entries: 3}}, "it has the identity spiffe://example.org/web (entry web)"},
		"two":                            {Case{Entries: svidcache.Explanation{Matches: []svidcache.Near{near("api"), near("web")}}}, "it has 2 identities, spiffe://example.org/api (entry api) is the default"},
		"one, though an attestor failed": {Case{Attested: failed, Entries: svidcache.Explanation{Matches: []svidcache.Near{near("web")}}}, "it has the identity spiffe://example.org/web (entry web)"},
		"failed":                         {Case{Attested: failed, Entries: svidcache.Explanation{Entries: 3}}, "it was not attested in full, and is told to try again: docker: daemon is away; really"},
		"withheld":                       {Case{Entries: svidcache.Explanation{Matches: []svidcache.Near{withheld("web", "it ended")}, Entries: 3}}, "entry web (spiffe://example.org/web) fits and is not served: it ended"},
		"none":                           {Case{}, "the issuer has no entry for this agent: an entry needs the agent's ID, or that of an alias of it, as its parent ID"},
		"aliases":                        {Case{Entries: svidcache.Explanation{Entries: 2}}, "none of 2 entries is for workloads"},
		"near":                           {Case{Entries: svidcache.Explanation{Entries: 1, Near: []svidcache.Near{near("web", "unix:uid:1", "unix:gid:2")}}}, "none of 1 entry fits: the nearest, spiffe://example.org/web (entry web), needs unix:uid:1 unix:gid:2 too"},
	} {
		if got := test.Verdict(); got != test.want {
			t.Errorf("%s: %s\nwant %s", name, got, test.want)
		}
	}
}

func TestVisible(t *testing.T) {
	c := Case{
		Attested: workloadattest.Result{Selectors: selectors("docker:env:A=1", "docker:env:B=x=y", "docker:env:C", "docker:label:env:z", "unix:uid:1")},
		Entries:  svidcache.Explanation{Near: []svidcache.Near{near("a", "docker:env:A=1", "docker:env:B=other")}},
	}
	const want = "docker:env:A=1 docker:env:B=(hidden) docker:env:C=(hidden) docker:label:env:z unix:uid:1"
	if got := Join(c.Visible()); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if c.Attested.Selectors[1].Value != "env:B=x=y" {
		t.Error("the attestation was changed")
	}
}

func TestNotes(t *testing.T) {
	now := time.Unix(1e9, 0)
	agent := Agent{ID: spiffeid.RequireFromString("spiffe://example.org/spire/agent/x"), Contact: upstream.Contact{Last: now, Address: "issuer:8081"}, Now: now}
	unix := workloadattest.Result{Reports: []workloadattest.Report{{Plugin: "unix"}}}
	alias := near("web")
	alias.Entry.ParentID = spiffeid.RequireFromString("spiffe://example.org/node")
	entry := func(texts ...string) Case {
		n := near("web")
		n.Entry.Selectors = selectors(texts...)
		return Case{Entries: svidcache.Explanation{Matches: []svidcache.Near{n}}}
	}
	stale, never := agent, agent
	stale.Contact.Last, stale.Contact.Err = now.Add(-time.Hour), errors.New("connection refused")
	never.Contact.Last = time.Time{}
	for name, test := range map[string]struct {
		Case
		agent Agent
		want  string // "" is no note at all
	}{
		"nothing to tell":    {Case{}, agent, ""},
		"stale":              {Case{}, stale, "has not heard from its issuer at issuer:8081 for 1h0m0s: what was changed since is not known here: connection refused"},
		"never":              {Case{}, never, "has not heard from its issuer at issuer:8081 since it started"},
		"attestor failed":    {Case{Attested: workloadattest.Result{Reports: []workloadattest.Report{{Plugin: "k8s", Err: errors.New("x")}}}}, agent, "the k8s attestor failed"},
		"no attestor":        {Case{Attested: unix, Entries: svidcache.Explanation{Near: []svidcache.Near{near("web", "k8s:ns:a")}}}, agent, `configure WorkloadAttestor "k8s"`},
		"no paths":           {Case{Attested: unix, Entries: svidcache.Explanation{Near: []svidcache.Near{near("web", "unix:path:/a", "unix:uid:1")}}}, agent, "discover_workload_path"},
		"another socket":     {Case{Attested: unix, Entries: svidcache.Explanation{Near: []svidcache.Near{near("web", "lanyard:socket:web")}}}, agent, "those who call over that socket"},
		"alias":              {Case{Entries: svidcache.Explanation{Matches: []svidcache.Near{alias}}}, agent, "has the parent ID spiffe://example.org/node"},
		"a path alone":       {entry("unix:path:/bin/web"), agent, "every user who can run /bin/web has that identity; add a unix:uid selector"},
		"a hash alone":       {entry("unix:sha256:00"), agent, "every user who can run a file of that sha256"},
		"lanyard":            {entry("unix:path:/usr/bin/lanyard"), agent, "lanyard is every role and every client verb"},
		"an interpreter":     {entry("unix:path:/usr/bin/python3.13"), agent, "python3.13 runs any program"},
		"a path and a user":  {entry("unix:path:/usr/bin/lanyard", "unix:uid:1"), agent, ""},
		"a path and a label": {entry("unix:path:/usr/bin/lanyard", "docker:label:a:b"), agent, ""},
	} {
		got := strings.Join(test.Notes(test.agent), "\n")
		if test.want == "" && got != "" || !strings.Contains(got, test.want) {
			t.Errorf("%s: %q\nwant %q", name, got, test.want)
		}
	}
}
