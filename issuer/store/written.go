package store

import (
	"sync"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

// written remembers entries on their way through etcd and back by the watch, so
// that what this process has just encoded need not be decoded. It only ever
// stands in for a record of exactly the same bytes.
type written struct {
	mu      sync.Mutex
	entries map[string]*draft // by entry ID
}

// maxWritten bounds what is remembered where nobody watches.
const maxWritten = 4 * batchEntries

// add remembers drafts before they are committed.
func (w *written) add(drafts []*draft) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.entries == nil || len(w.entries)+len(drafts) > maxWritten {
		w.entries = make(map[string]*draft, len(drafts))
	}
	for _, d := range drafts {
		w.entries[d.entry.ID] = d
	}
}

// drop forgets drafts that were not committed.
func (w *written) drop(drafts []*draft) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range drafts {
		delete(w.entries, d.entry.ID)
	}
}

// take returns the entry whose record data is, if it is remembered, and forgets
// it.
func (w *written) take(id string, data []byte) (registration.Entry, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	d, ok := w.entries[id]
	if !ok {
		return registration.Entry{}, false
	}
	delete(w.entries, id)
	return d.entry, d.data == string(data)
}
