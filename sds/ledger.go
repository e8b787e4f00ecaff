package sds

import (
	"maps"
	"slices"
	"time"
)

// wildcard asks for all secrets of the caller by their SPIFFE IDs (xDS
// transport protocol, "How the client specifies what resources to return").
const wildcard = "*"

// ledger is one stream's account of the names its client asked for and the
// version of each that it was last sent.
type ledger struct {
	wants map[string]want
	all   bool // asked for by wildcard, too
}

type want struct {
	version string // last sent, or held by the client before; empty for none
	named   bool   // asked for by name, not only by the wildcard
	answer  bool   // due even if the client has this version: it asked again
	told    bool   // it is gone, the client cannot be told, the log was
}

func newLedger() ledger { return ledger{wants: make(map[string]want)} }

// subscribe adds names; each is answered even if it was answered before, unless
// the client says that it holds the present version.
func (l *ledger) subscribe(names []string, held map[string]string) {
	for _, name := range names {
		if name == wildcard {
			l.all = true
			continue
		}
		w := l.wants[name]
		w.named, w.answer = true, true
		if version := held[name]; version != "" {
			w.version, w.answer = version, false
		}
		l.wants[name] = w
	}
	if !l.all {
		return
	}
	for name, version := range held {
		if _, ok := l.wants[name]; !ok {
			l.wants[name] = want{version: version}
		}
	}
}

// unsubscribe drops names. One that the wildcard still covers comes back as new
// with the next catalog, for the client has forgotten it.
func (l *ledger) unsubscribe(names []string) {
	for _, name := range names {
		if name != wildcard {
			delete(l.wants, name)
			continue
		}
		l.all = false
		maps.DeleteFunc(l.wants, func(_ string, w want) bool { return !w.named })
	}
}

// replace makes names the whole subscription: new ones are answered, those that
// stay are as they were.
func (l *ledger) replace(names []string) {
	keep := make(map[string]bool, len(names))
	var added []string
	for _, name := range names {
		keep[name] = true
		if !l.wants[name].named {
			added = append(added, name)
		}
	}
	for name, w := range l.wants {
		if w.named && !keep[name] {
			delete(l.wants, name)
		}
	}
	if l.all && !keep[wildcard] {
		l.unsubscribe([]string{wildcard})
	}
	l.subscribe(added, nil)
}

// due compares the catalog with what the client has: the secrets to send, and
// the names of those it has that are gone, both in the order of their names. A
// name that neither side has is in neither: it waits. So does one whose SVID
// has expired: that is never handed out.
func (l *ledger) due(c *catalog, now time.Time) (changed []*resource, gone []string) {
	if l.all {
		for _, name := range c.ids() {
			if _, ok := l.wants[name]; !ok {
				l.wants[name] = want{}
			}
		}
	}
	for _, name := range l.names() {
		w := l.wants[name]
		switch r := c.find(name); {
		case r == nil && w.version != "" && !w.told:
			gone = append(gone, name)
		case r == nil || r.expired(now):
		case w.answer || r.version != w.version:
			changed = append(changed, r)
		}
	}
	return changed, gone
}

// sent notes that the client was sent these.
func (l *ledger) sent(rs []*resource) {
	for _, r := range rs {
		w := l.wants[r.name]
		w.version, w.answer, w.told = r.version, false, false
		l.wants[r.name] = w
	}
}

// available returns what there is of the subscription.
func (l *ledger) available(c *catalog, now time.Time) []*resource {
	var rs []*resource
	for _, name := range l.names() {
		if r := c.find(name); r != nil && !r.expired(now) {
			rs = append(rs, r)
		}
	}
	return rs
}

// stranded notes that these are gone and the client still has them.
func (l *ledger) stranded(names []string) {
	for _, name := range names {
		w := l.wants[name]
		w.told = true
		l.wants[name] = w
	}
}

// removed notes that the client was told that these are gone.
func (l *ledger) removed(names []string) {
	for _, name := range names {
		w := l.wants[name]
		w.version = ""
		l.wants[name] = w
		if !w.named {
			delete(l.wants, name)
		}
	}
}

// names returns what is subscribed to, the wildcard's as far as known, sorted.
func (l *ledger) names() []string { return slices.Sorted(maps.Keys(l.wants)) }

// unsent returns the names that the client has asked for and has not, sorted.
func (l *ledger) unsent() []string {
	return slices.DeleteFunc(l.names(), func(name string) bool { return l.wants[name].version != "" })
}
