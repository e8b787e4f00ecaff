// Package entryplan owns what applying a file of entries would do: which to create, which to change and in what, which to
// delete. It is pure; it does not read files or talk to an issuer.
package entryplan

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/cli/entryfile"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// Action is what happens to an entry.
type Action string

// The actions.
const (
	Create Action = "create"
	Update Action = "update"
	Delete Action = "delete"
)

// Change is one entry that does not stay as it is.
type Change struct {
	Action Action
	// Name is what the file calls the entry; "" in JSON and for Delete.
	Name string
	// Entry is what is to be; for Delete, what is.
	Entry *types.Entry
	// Fields are what differs, of an Update.
	Fields []Field
}

// Plan is what applying a file would do.
type Plan struct {
	Changes   []Change
	Unchanged int
	// Adopted counts declared entries that somebody else made, by hand or by another set: they are kept up to date under
	// the ID they have, and never pruned.
	Adopted int
	// Left counts entries of the set that no file declares any more, and that stay as nobody said to prune.
	Left int
}

// Options say what belongs to the set, and what becomes of the rest of it.
type Options struct {
	Set   string
	Prune bool
	// Scopes bound pruning to entries with these SPIFFE IDs and below; none is no bound.
	Scopes []string
}

const (
	// DefaultSet is the set of files that don't say.
	DefaultSet = "default"
	// maxSet leaves room for the hash: entry IDs have 255 characters at most.
	maxSet   = 200
	hashSize = 12 // bytes
)

// CheckSet says why set can't be the name of a set, or nil.
func CheckSet(set string) error {
	for _, c := range set {
		if !strings.ContainsRune("-._ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", c) {
			return fmt.Errorf("set %q: only letters, digits, '-', '.' and '_' are possible in the IDs of its entries", set)
		}
	}
	if set == "" || len(set) > maxSet {
		return fmt.Errorf("set %q: want 1 to %d characters", set, maxSet)
	}
	return nil
}

// ID is the entry ID of what a set declares: by its name or, where it has none, by what makes it the same entry.
func ID(set string, d entryfile.Declared) string {
	text := "name\n" + d.Name
	if d.Name == "" {
		text = "key\n" + entryfile.Key(d.Entry)
	}
	sum := sha256.Sum256([]byte(text))
	return set + "." + hex.EncodeToString(sum[:hashSize])
}

// Owned says whether an entry ID was made for the set.
func Owned(set, id string) bool {
	hash, ok := strings.CutPrefix(id, set+".")
	if !ok || len(hash) != 2*hashSize {
		return false
	}
	_, err := hex.DecodeString(hash)
	return err == nil && strings.ToLower(hash) == hash
}

// Make compares what is declared with what there is.
func Make(declared []entryfile.Declared, existing []*types.Entry, o Options) Plan {
	byID, byKey := index(existing)
	var p Plan
	claimed := map[string]bool{} // IDs of existing entries
	wanted := make([]*types.Entry, len(declared))
	for i, d := range declared { // what has its ID goes first: it may not be taken for another one by its key
		want := proto.CloneOf(d.Entry)
		if want.Id == "" {
			want.Id = ID(o.Set, d)
		}
		wanted[i] = want
		if byID[want.Id] != nil {
			claimed[want.Id] = true
		}
	}
	for i, want := range wanted {
		have := byID[want.Id]
		if same := byKey[entryfile.Key(want)]; have == nil && same != nil && !claimed[same.Id] {
			have = same
			want.Id = same.Id
			claimed[same.Id] = true
		}
		switch {
		case have == nil:
			p.Changes = append(p.Changes, Change{Action: Create, Name: declared[i].Name, Entry: want})
			continue
		case !Owned(o.Set, have.Id):
			p.Adopted++
		}
		if fields := Diff(have, want); len(fields) > 0 {
			p.Changes = append(p.Changes, Change{Action: Update, Name: declared[i].Name, Entry: want, Fields: fields})
			continue
		}
		p.Unchanged++
	}
	for _, e := range existing {
		switch {
		case claimed[e.Id] || !Owned(o.Set, e.Id) || !within(entryfile.IDString(e.SpiffeId), o.Scopes):
		case o.Prune:
			p.Changes = append(p.Changes, Change{Action: Delete, Entry: e})
		default:
			p.Left++
		}
	}
	return p
}

// Count gives how many changes there are of one kind.
func (p Plan) Count(a Action) int {
	n := 0
	for _, c := range p.Changes {
		if c.Action == a {
			n++
		}
	}
	return n
}

// Of gives the changes of one kind.
func (p Plan) Of(a Action) []*Change {
	var some []*Change
	for i := range p.Changes {
		if p.Changes[i].Action == a {
			some = append(some, &p.Changes[i])
		}
	}
	return some
}

func index(existing []*types.Entry) (byID, byKey map[string]*types.Entry) {
	byID, byKey = make(map[string]*types.Entry, len(existing)), make(map[string]*types.Entry, len(existing))
	for _, e := range existing {
		byID[e.Id] = e
		byKey[entryfile.Key(e)] = e
	}
	return byID, byKey
}

// within says whether id is one of the scopes, or below one.
func within(id string, scopes []string) bool {
	return len(scopes) == 0 || slices.ContainsFunc(scopes, func(s string) bool {
		s = strings.TrimSuffix(s, "/")
		return id == s || strings.HasPrefix(id, s+"/")
	})
}
