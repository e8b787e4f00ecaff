package conformance

import (
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the table of docs/spire-differences.md from the reviewed list")

// TestDifferencesAreDocumented compares the reviewed list with the page that operators read, both ways.
func TestDifferencesAreDocumented(t *testing.T) {
	const page = "../../docs/spire-differences.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(string(text), "| `")
	want := head
	for _, d := range Differences() {
		want += d.row() + "\n"
	}
	if _, tail, found := strings.Cut(rest, "\n\n## "); found { // what no check sees
		want += "\n## " + tail
	}
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		text = []byte(want)
	}
	if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(string(text), "\n")); diff != "" {
		t.Errorf("%s is not the reviewed list; go test ./integration/conformance -update (-list +page):\n%s", page, diff)
	}
}

func TestDifferencesNameTheirChecks(t *testing.T) {
	checks, names := Checks(), map[string]bool{}
	for _, d := range Differences() {
		if names[d.Name] {
			t.Errorf("%q is twice in the list", d.Name)
		}
		names[d.Name] = true
		if d.SPIRE == "" || d.Lanyard == "" || d.Why == "" || len(d.Checks) == 0 {
			t.Errorf("%q: something is not said: %+v", d.Name, d)
		}
		for _, check := range d.Checks {
			if !slices.Contains(checks, check) {
				t.Errorf("%q names the check %q, which is none", d.Name, check)
			}
		}
	}
	slices.Sort(checks)
	if unique := slices.Compact(slices.Clone(checks)); len(unique) != len(checks) {
		t.Error("two checks have one name")
	}
}
