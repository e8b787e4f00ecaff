package workloadattest

import (
	"os/user"
	"strconv"
	"sync"
	"time"
)

const (
	// nameAge is how long the name of a user or group is believed: what an
	// administrator changes counts after this.
	nameAge = 10 * time.Second
	// maxNames bounds a cache of names.
	maxNames = 1024
)

// names remembers the names of users, or of groups. Looking one up reads a file
// or, in a build with cgo, asks nsswitch's services, which may be slow.
type names struct {
	lookup func(id string) string // "": it has none
	now    func() time.Time

	mu    sync.Mutex
	known map[uint32]knownName
}

type knownName struct {
	name string
	at   time.Time
}

func newNames(lookup func(string) string) *names {
	return &names{lookup: lookup, now: time.Now, known: make(map[uint32]knownName)}
}

// name returns "" where the system knows none.
func (n *names) name(id uint32) string {
	n.mu.Lock()
	known, ok := n.known[id]
	n.mu.Unlock()
	now := n.now()
	if ok && now.Sub(known.at) < nameAge {
		return known.name
	}
	name := n.lookup(strconv.FormatUint(uint64(id), 10))
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.known) >= maxNames {
		clear(n.known) // rare; what is needed comes back
	}
	n.known[id] = knownName{name: name, at: now}
	return name
}

func userName(uid string) string {
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return ""
}

func groupName(gid string) string {
	if g, err := user.LookupGroupId(gid); err == nil {
		return g.Name
	}
	return ""
}
