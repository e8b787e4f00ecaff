package metrics

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// The labels of peers that have no trust domain of their own among the labels.
const (
	domainNone  = "none"  // the peer is not known, or has no SPIFFE ID
	domainOther = "other" // there are too many, or it was only claimed
)

// maxDomains is how many trust domains are labels.
const maxDomains = 50

// recheck is how often the bundles are asked for because of a name that is not
// among the labels: strangers can make up as many as they like.
const recheck = time.Second

// domains keeps the number of trust domains that are labels bounded. One becomes
// a label once a peer of it was verified, or when there is a bundle for it.
type domains struct {
	bundles func() []string // trust domains with a bundle at hand

	mu      sync.Mutex
	known   atomic.Pointer[map[string]bool] // a map never changes; replaced under mu
	checked time.Time                       // when bundles was asked last; guarded by mu
}

func (d *domains) has(name string) bool {
	m := d.known.Load()
	return m != nil && (*m)[name]
}

func (d *domains) label(name string, verified bool) string {
	switch {
	case name == "":
		return domainNone
	case d.has(name):
		return name
	case !verified && !d.trusted(name):
		return domainOther
	}
	return d.add(name)
}

// trusted reports whether there is a bundle for a trust domain; it may miss one
// that just came.
func (d *domains) trusted(name string) bool {
	now := time.Now()
	d.mu.Lock()
	if now.Sub(d.checked) < recheck {
		d.mu.Unlock()
		return false
	}
	d.checked = now
	d.mu.Unlock()
	return slices.Contains(d.bundles(), name)
}

func (d *domains) add(name string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	next := map[string]bool{name: true}
	if m := d.known.Load(); m != nil {
		if len(*m) >= maxDomains && !(*m)[name] {
			return domainOther
		}
		maps.Copy(next, *m)
	}
	d.known.Store(&next)
	return name
}
