// Package suggest finds the name somebody meant when they mistyped one: a key of a configuration file, a flag or a verb. It
// knows nothing of where the names come from.
package suggest

import (
	"fmt"
	"strings"
)

// Closest gives the candidate nearest to name, or "" when none is near enough to be what was meant. Letter case,
// dashes and underscores cost nothing: spiffe-id means spiffeID. Of candidates equally near the first one wins.
func Closest(name string, candidates []string) string {
	want := fold(name)
	best, bestDistance := "", limit(len(want))+1
	for _, c := range candidates {
		got := fold(c)
		d := distance(want, got, bestDistance)
		if d >= bestDistance && strings.HasPrefix(got, want) && len(want) >= 4 {
			d = bestDistance - 1 // a name typed in part
		}
		if d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// Unknown words that name is none of known: "unknown key "spifeID"; did you mean "spiffe_id"?".
func Unknown(what, name string, known []string) string {
	if near := Closest(name, known); near != "" {
		return fmt.Sprintf("unknown %s %q; did you mean %q?", what, name, near)
	}
	return fmt.Sprintf("unknown %s %q; known are: %s", what, name, strings.Join(known, ", "))
}

// limit is how many edits a name of n letters may be away.
func limit(n int) int {
	switch {
	case n <= 2:
		return 1
	case n <= 6:
		return 2
	default:
		return max(3, n/3)
	}
}

func fold(s string) string {
	return strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(s))
}

// distance is the optimal string alignment distance: insertions, deletions, substitutions and swaps of neighbours. It
// gives up, with a value of at least bound, as soon as a row shows that bound will be reached.
func distance(a, b string, bound int) int {
	if len(a)-len(b) >= bound || len(b)-len(a) >= bound {
		return bound
	}
	var before, last []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, make([]int, len(b)+1)
		row[0] = i
		least := i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
			least = min(least, row[j])
		}
		if least >= bound {
			return bound
		}
	}
	return row[len(b)]
}
