package conformance

import (
	"slices"
	"strings"
)

// Difference is a place where Lanyard's issuer is meant to answer otherwise than SPIRE's server. docs/spire-differences.md
// holds the same rows, for operators.
type Difference struct {
	Name    string   // what a check asks for by Differs
	Checks  []string // the checks that ask
	SPIRE   string   // what SPIRE's server does
	Lanyard string   // what ours does
	Why     string
}

// Differences is the reviewed list.
func Differences() []Difference {
	return slices.Concat(wordDifferences(), joinDifferences(), entryDifferences(), bundleDifferences(), signingDifferences())
}

// difference finds a row by name.
func difference(name string) (Difference, bool) {
	for _, d := range Differences() {
		if d.Name == name {
			return d, true
		}
	}
	return Difference{}, false
}

func wordDifferences() []Difference {
	return []Difference{{
		Name: "words",
		Checks: []string{
			"agent/IDs that are no agent's", "agent/list refused", "entry/create refused", "entry/create with fields refused",
			"entry/DNS names", "entry/update refused", "entry/list refused", "svid/mint X.509 refused", "svid/mint JWT refused",
			"downstream/refused", "limits/more than the burst",
		},
		SPIRE:   "What is wrong with a request is said without the value that is wrong, or by the database's rules.",
		Lanyard: "The same code, and where SPIRE's text names the part of the request, the same beginning; then the value, and what would do.",
		Why:     "An operator mends what is named. No client of SPIRE's reads these texts.",
	}}
}

// row is the difference as the page has it.
func (d Difference) row() string {
	cell := strings.NewReplacer("|", `\|`, "\n", " ")
	return "| `" + cell.Replace(d.Name) + "` | " + cell.Replace(d.SPIRE) + " | " + cell.Replace(d.Lanyard) + " | " + cell.Replace(d.Why) + " |"
}
