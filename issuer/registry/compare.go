package registry

import (
	"maps"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// compare tells all that there is now from all that was told. It rewinds the
// index to find the latter, so that it costs as much as two calls of
// AuthorizedEntries and needs nothing kept for each follower. Where the history
// does not reach back that far, all there is has to be told again.
func (f *Follower) compare(now view) Delta {
	changes, ok := f.r.history.since(f.told.Revision)
	if !ok || f.told.Revision <= 0 || f.told.Revision > f.r.applied {
		is, _ := now.reachable(f.agent)
		is = f.visible(is)
		f.domains, f.bundles = domainsOf(is), nil
		return f.differBundles(now, differ(nil, is, Delta{Reset: true}))
	}
	if len(changes) == 0 && !f.r.endedBetween(f.told.Second, now.second) {
		return Delta{}
	}
	then := view{idx: f.r.idx, second: f.told.Second, past: f.r.idx.rewind(changes)}
	was, wasBelow := then.reachable(f.agent)
	is, isBelow := now.reachable(f.agent)
	was, is = f.visible(was), f.visible(is)
	f.bundles = then.bundlesOf(domainsOf(was))
	f.domains = domainsOf(is)
	// Most entries are the same in both, and found without looking for them.
	was = slices.DeleteFunc(was, func(n *node) bool { return then.here(n) && now.live(n) && in(isBelow, n.parentID) })
	is = slices.DeleteFunc(is, func(n *node) bool { return then.here(n) && then.live(n) && in(wasBelow, n.parentID) })
	return f.differBundles(now, differ(was, is, Delta{}))
}

func in(parents map[spiffeid.ID]struct{}, id spiffeid.ID) bool {
	_, ok := parents[id]
	return ok
}

// differ adds to d how the entries that there are differ from those that were,
// both without what is the same.
func differ(was, is []*node, d Delta) Delta {
	slices.SortFunc(was, compareNodes)
	slices.SortFunc(is, compareNodes)
	d.nodes = is
	for _, n := range was {
		if _, found := slices.BinarySearchFunc(is, n.id, compareID); !found {
			d.Removed = append(d.Removed, n.id)
		}
	}
	return d
}

// gather tells what has changed as it was noted.
func (f *Follower) gather(now view) Delta {
	var d Delta
	for id, p := range f.pending {
		was, is := f.seen(p.was), f.seen(p.is)
		if was == is {
			continue
		}
		count(f.domains, was, -1)
		count(f.domains, is, 1)
		if is != nil {
			d.nodes = append(d.nodes, is)
		} else {
			d.Removed = append(d.Removed, id)
		}
	}
	slices.SortFunc(d.nodes, compareNodes)
	slices.Sort(d.Removed)
	return f.differBundles(now, d)
}

// differBundles adds to d how the bundles differ from those told.
func (f *Follower) differBundles(now view, d Delta) Delta {
	was, is := f.bundles, now.bundlesOf(f.domains)
	for _, name := range slices.SortedFunc(maps.Keys(is), ownFirst(now.idx.td.Name())) {
		if is[name] != was[name] {
			d.Bundles = append(d.Bundles, is[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(was)) {
		if is[name] == nil {
			d.RemovedBundles = append(d.RemovedBundles, name)
		}
	}
	f.bundles = is
	return d
}

func ownFirst(own string) func(a, b string) int {
	return func(a, b string) int {
		switch {
		case a == b:
			return 0
		case a == own:
			return -1
		case b == own:
			return 1
		}
		return strings.Compare(a, b)
	}
}

// seen is n, or nil where the follower is not told of it.
func (f *Follower) seen(n *node) *node {
	if n == nil || !f.templates && !n.template().IsZero() {
		return nil
	}
	return n
}

// visible keeps what the follower is told of.
func (f *Follower) visible(nodes []*node) []*node {
	if f.templates {
		return nodes
	}
	return slices.DeleteFunc(nodes, func(n *node) bool { return f.seen(n) == nil })
}

// domainsOf counts the entries that federate with each trust domain.
func domainsOf(nodes []*node) map[string]int {
	domains := make(map[string]int)
	for _, n := range nodes {
		count(domains, n, 1)
	}
	return domains
}

// count counts n, which may be nil, in or out.
func count(domains map[string]int, n *node, by int) {
	if n == nil || n.rest == nil {
		return
	}
	for _, td := range n.rest.federatesWith {
		if domains[td.Name()] += by; domains[td.Name()] == 0 {
			delete(domains, td.Name())
		}
	}
}

// bundlesOf returns the bundles there are of the trust domains, and the own.
func (v view) bundlesOf(domains map[string]int) map[string]*bundle {
	bundles := make(map[string]*bundle, len(domains)+1)
	own := v.idx.td.Name()
	if b := v.bundle(own); b != nil {
		bundles[own] = b
	}
	for name := range domains {
		if b := v.bundle(name); b != nil {
			bundles[name] = b
		}
	}
	return bundles
}
