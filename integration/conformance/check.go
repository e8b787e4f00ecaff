package conformance

import (
	"slices"
	"sync"
	"testing"
)

// Check is one row of the suite.
type Check struct {
	Name string // "service/what", unique
	Run  func(c *C)
}

// group is checks on one server, run one after the other; groups run beside one another.
type group struct {
	name     string
	settings func(t *testing.T, e *env) Settings
	checks   []Check
}

// groups is the whole suite.
func groups() []group {
	return []group{
		{"main", mainSettings, slices.Concat(
			agentChecks(), agentListChecks(), joinChecks(), bundleChecks(), federatedChecks(), entryChecks(), entryListChecks(),
			entryFilterChecks(), authorizedChecks(), svidChecks(), mintChecks(), jwtChecks(), downstreamChecks(), relationChecks(),
			loggerChecks(), debugChecks(), healthChecks(), tlsChecks())},
		{"access", mainSettings, accessChecks()},
		{"sync", mainSettings, syncChecks()},
		{"authority", mainSettings, authorityChecks()},
		{"upstream", upstreamSettings, upstreamChecks()},
		{"short", shortSettings, shortChecks()},
		{"nojwt", noJWTSettings, noJWTChecks()},
		{"limits", limitSettings, limitChecks()},
	}
}

// Checks are the names of all checks, as the reviewed list names them.
func Checks() []string {
	var names []string
	for _, g := range groups() {
		for _, check := range g.checks {
			names = append(names, check.Name)
		}
	}
	return names
}

// Run runs the whole suite on the target, each check as a subtest of its name.
func Run(t *testing.T, target Target) {
	seen := &seen{names: map[string]bool{}}
	t.Cleanup(func() {
		if !t.Failed() {
			seen.unused(t, target.Kind)
		}
	})
	for _, g := range groups() {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, target.Kind, seen)
			e.start(t, target, g.settings(t, e))
			for _, check := range g.checks {
				t.Run(check.Name, func(t *testing.T) {
					seen.ran()
					check.Run(newC(t, e, check.Name))
				})
			}
		})
	}
}

// seen are the differences that a run came by.
type seen struct {
	mu     sync.Mutex
	names  map[string]bool
	checks int // that ran: -run may have picked some
}

func (s *seen) ran() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checks++
}

func (s *seen) add(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names[name] = true
}

// unused reports rows of the reviewed list that no check asked for.
func (s *seen) unused(t *testing.T, kind Kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.checks < len(Checks()) {
		return
	}
	for _, d := range Differences() {
		if !s.names[d.Name] {
			t.Errorf("on %s no check came by the difference %q", kind, d.Name)
		}
	}
}
