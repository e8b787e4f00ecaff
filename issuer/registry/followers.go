package registry

import (
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

// followers are the followers there are, by what concerns them.
type followers struct {
	count   int
	byAgent map[spiffeid.ID][]*Follower
	// bySelector files each under every selector of its agent.
	bySelector map[registration.Selector][]*Follower
}

func newFollowers() followers {
	return followers{byAgent: make(map[spiffeid.ID][]*Follower), bySelector: make(map[registration.Selector][]*Follower)}
}

func (fs *followers) add(f *Follower, x *index) {
	if !x.hasEntries(f.agent) {
		return // none is the agent's, ever
	}
	fs.count++
	fs.byAgent[f.agent] = append(fs.byAgent[f.agent], f)
	f.selectors = x.agents[f.agent].selectors
	for s := range f.selectors {
		fs.bySelector[s] = append(fs.bySelector[s], f)
	}
}

func (fs *followers) remove(f *Follower) {
	if !without(fs.byAgent, f.agent, f) {
		return
	}
	fs.count--
	for s := range f.selectors {
		without(fs.bySelector, s, f)
	}
}

// without takes f off the list under key; false if it is not there.
func without[K comparable](lists map[K][]*Follower, key K, f *Follower) bool {
	list := lists[key]
	for i, one := range list {
		if one != f {
			continue
		}
		if len(list) == 1 {
			delete(lists, key)
			return true
		}
		list[i] = list[len(list)-1]
		list[len(list)-1] = nil
		lists[key] = list[:len(list)-1]
		return true
	}
	return false
}

// refile files the followers of an agent whose selectors have changed.
func (fs *followers) refile(agent spiffeid.ID, x *index) {
	for _, f := range slices.Clone(fs.byAgent[agent]) {
		fs.remove(f)
		fs.add(f, x)
	}
}

// having calls visit for those whose agent has all the selectors of a node alias.
func (fs *followers) having(selectors []registration.Selector, visit func(*Follower)) {
	fewest := fs.bySelector[selectors[0]]
	for _, s := range selectors[1:] {
		if list := fs.bySelector[s]; len(list) < len(fewest) {
			fewest = list
		}
	}
	for _, f := range fewest {
		if f.selectors.HasAll(selectors) {
			visit(f)
		}
	}
}
