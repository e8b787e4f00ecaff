package svidcache

import (
	"slices"
	"strings"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

// Caller is whom an identity is asked for.
type Caller struct {
	// Selectors are those that attestation found, in any order. They are kept:
	// don't change them.
	Selectors []registration.Selector
	// Only, unless zero, keeps from the caller all entries that don't name this
	// selector: what came over one workload's socket is given that workload's.
	Only registration.Selector
}

// normal is the caller with its selectors ordered and each once.
func (c Caller) normal() Caller {
	return Caller{Selectors: registration.SortedSelectors(c.Selectors), Only: c.Only}
}

// key is the same for callers that are given the same; c is normal.
func (c Caller) key() string {
	var b strings.Builder
	for _, s := range append(slices.Clone(c.Selectors), c.Only) {
		b.WriteString(s.Type)
		b.WriteByte(0)
		b.WriteString(s.Value)
		b.WriteByte(0)
	}
	return b.String()
}

// may reports whether entries with the selectors are the caller's at all.
func (c Caller) may(entry []registration.Selector) bool {
	return c.Only == registration.Selector{} || slices.Contains(entry, c.Only)
}
