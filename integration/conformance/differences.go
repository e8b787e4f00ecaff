package conformance

import "slices"

// Difference is a place where Lanyard's issuer is meant to answer otherwise than SPIRE's server. docs/spire-differences.md
// holds the same rows, for operators.
type Difference struct {
	Name    string // what a check asks for by Differs
	Check   string // the check that asks
	SPIRE   string // what SPIRE's server does
	Lanyard string // what ours does
	Why     string
}

// Differences is the reviewed list.
func Differences() []Difference {
	return slices.Concat(joinDifferences(), entryDifferences(), bundleDifferences(), signingDifferences())
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
