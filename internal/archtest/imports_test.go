package archtest

import (
	"slices"
	"strings"
	"testing"
)

// area is the first element of a directory: a role, internal, cmd, ...
func area(dir string) string {
	first, _, _ := strings.Cut(dir, "/")
	return first
}

// roles meet only on the wire.
var roles = []string{"issuer", "nodeagent", "sidecar", "sds"}

// mayImport says which areas of the module the packages of an area may import, besides their own.
var mayImport = map[string][]string{
	"issuer":      {"internal", "configs"},
	"nodeagent":   {"internal", "configs"},
	"sidecar":     {"internal", "configs"},
	"sds":         {"internal", "configs"},
	"internal":    nil,
	"configs":     nil,
	"cmd":         {"internal", "configs", "issuer", "nodeagent", "sidecar", "sds"},
	"integration": nil, // lives by the command line, and by what is on the wire
	"bench":       {"integration"},
}

// onTheWire are the packages that those who know no role from inside may import as well: messages, and certificates of
// authorities that are thrown away.
var onTheWire = map[string][]string{
	"integration": {"internal/spireapi", "internal/testca"},
	"bench":       {"internal/spireapi"},
}

func isOnTheWire(from, to string) bool {
	return slices.ContainsFunc(onTheWire[from], func(dir string) bool { return to == dir || strings.HasPrefix(to, dir+"/") })
}

// exceptions are imports across areas, "from -> to", each with its reason.
var exceptions = map[string]string{
	"internal/spireapi -> issuer/store/storepb":               "a test compares all generated code with the .proto files; these records are generated from the same folder",
	"issuer/enroll/k8spsat -> integration/kube":               "tests only: joins by a real kube-apiserver, which that package starts",
	"nodeagent/sockets -> integration/machine":                "tests only: is restarted by a real systemd, which that package boots",
	"nodeagent/workloadattest/systemd -> integration/machine": "tests only: asks a real systemd, which that package boots",
	"sidecar/faults -> integration/traffic":                   "tests only: its fault runs hold the conversations that those on built binaries hold",
}

func TestAreasImportOnlyWhatTheyMay(t *testing.T) {
	m := mustLoad(t)
	used := map[string]bool{}
	for dir, sources := range m.packages {
		from := area(dir)
		allowed, known := mayImport[from]
		if !known {
			t.Errorf("%s: no import rule for %q; add its area to mayImport", dir, from)
			continue
		}
		for _, src := range sources {
			for _, imported := range src.imports() {
				to, ok := local(imported)
				if !ok || area(to) == from || slices.Contains(allowed, area(to)) || isOnTheWire(from, to) {
					continue
				}
				edge := dir + " -> " + to
				if used[edge] = true; exceptions[edge] == "" {
					t.Errorf("%s imports %s: %s may import, of this module, only %v besides its own", src.name, to, from, allowed)
				}
			}
		}
	}
	for edge := range exceptions {
		if !used[edge] {
			t.Errorf("exception %q is of no use any more: remove it", edge)
		}
	}
}

// commands says which roles a binary links. The binaries of one role are for images.
var commands = map[string][]string{
	"cmd/lanyard":         roles,
	"cmd/lanyard-issuer":  {"issuer"},
	"cmd/lanyard-agent":   {"nodeagent", "sds"}, // its Workload API socket serves SDS as well, as SPIRE's agent's does
	"cmd/lanyard-sidecar": {"sidecar"},
	"cmd/lanyard-sds":     {"sds"},
}

func TestCommandsLinkOnlyTheirRoles(t *testing.T) {
	m := mustLoad(t)
	for dir, sources := range m.packages {
		if area(dir) == "cmd" && sources[0].syntax.Name.Name == "main" && commands[dir] == nil {
			t.Errorf("%s: which roles may it link? Add it to commands", dir)
		}
	}
	for dir, want := range commands {
		if m.packages[dir] == nil {
			t.Errorf("%s is not there", dir)
			continue
		}
		linked := map[string]bool{}
		for _, dep := range m.closure(dir) {
			if slices.Contains(roles, area(dep)) {
				linked[area(dep)] = true
			}
			if slices.Contains(roles, area(dep)) && !slices.Contains(want, area(dep)) {
				t.Errorf("%s links %s, of another role", dir, dep)
			}
		}
		for _, role := range want {
			if !linked[role] {
				t.Errorf("%s does not link its role %s", dir, role)
			}
		}
	}
}

// forTests tells the packages that exist for tests: throwaway authorities and in-process peers.
func forTests(dir string) bool {
	return dir == "internal/testca" || strings.HasSuffix(dir, "test") && !strings.HasSuffix(dir, "attest")
}

func TestNoBinaryLinksWhatIsForTests(t *testing.T) {
	m := mustLoad(t)
	for dir := range commands {
		for _, dep := range m.closure(dir) {
			if forTests(dep) {
				t.Errorf("%s links %s, which is for tests", dir, dep)
			}
			for _, src := range m.packages[dep] {
				if !src.test && slices.Contains(src.imports(), "testing") {
					t.Errorf("%s links %s, which imports testing", dir, src.name)
				}
			}
		}
	}
}
