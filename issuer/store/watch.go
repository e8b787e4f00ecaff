package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// Kind says what an Event is about.
type Kind int

// The kinds of events. Join tokens have none: nothing outside the store reads them.
const (
	KindEntry Kind = iota + 1
	KindAgent
	KindBundle
	KindAuthority
	KindFederatedBundle
	KindRelationship
)

// Event is one record that was written or deleted. Of the last fields the one of
// its Kind is set, unless it was deleted.
type Event struct {
	Kind Kind
	// ID is the entry's, agent's or authority's; the name of the trust domain for
	// what is federated; empty for the bundle.
	ID      string
	Deleted bool

	Entry registration.Entry
	Agent *storepb.Agent
	// Bundle is that of KindBundle or KindFederatedBundle.
	Bundle       *types.Bundle
	Authority    *storepb.X509Authority
	Relationship *types.FederationRelationship
}

// Batch is what changed up to a revision. It never holds part of a transaction;
// it may hold no event that anybody outside needs to know.
type Batch struct {
	Revision Revision
	Events   []Event
}

// Watch calls handle for all that changed after the revision, in order, until
// ctx ends, handle fails, or the store closes, and returns why. The error
// wraps ErrCompacted if the history since then is no longer kept.
func (s *Store) Watch(ctx context.Context, after Revision, handle func(Batch) error) error {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	ch := s.client.Watch(ctx, root, clientv3.WithPrefix(), clientv3.WithRev(int64(after)+1))
	for resp := range ch {
		if resp.CompactRevision != 0 {
			return fmt.Errorf("watch after revision %d: %w", after, ErrCompacted)
		}
		if err := resp.Err(); err != nil {
			return s.fault("watch", err)
		}
		if len(resp.Events) == 0 {
			continue
		}
		if err := handle(s.batch(resp.Events)); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errors.New("store: etcd ended the watch")
}

// Compact forgets the history before the revision, which etcd also does by
// itself after some minutes. Records stay; a watch from before then ends with
// ErrCompacted.
func (s *Store) Compact(ctx context.Context, before Revision) error {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if _, err := s.client.Compact(ctx, int64(before)); err != nil {
		return s.fault("compact", err)
	}
	return nil
}

func (s *Store) batch(events []*clientv3.Event) Batch {
	b := Batch{Revision: Revision(events[len(events)-1].Kv.ModRevision), Events: make([]Event, 0, len(events)/2+1)}
	for _, e := range events {
		// Half of what a batch of entries writes is not for anybody.
		if bytes.HasPrefix(e.Kv.Key, []byte(uniqueDir)) {
			continue
		}
		if event, ok := s.event(e); ok {
			b.Events = append(b.Events, event)
		}
	}
	return b
}

// event reads one; false if nobody needs it. What cannot be read is announced as
// deleted, for what it was before is no longer so; of the bundle and the
// authorities the last good record stays.
func (s *Store) event(e *clientv3.Event) (Event, bool) {
	key := string(e.Kv.Key)
	event := Event{Deleted: e.Type == clientv3.EventTypeDelete}
	event.Kind, event.ID = kindOf(key)
	if event.Kind == 0 || event.Deleted {
		return event, event.Kind != 0
	}
	var err error
	switch event.Kind {
	case KindEntry:
		var known bool
		if event.Entry, known = s.written.take(event.ID, e.Kv.Value); !known {
			event.Entry, err = decodeEntry(event.ID, e.Kv.Value)
		}
	case KindAgent:
		event.Agent, err = decodeAgent(event.ID, e.Kv.Value)
	case KindBundle:
		event.Bundle, err = decodeBundle(s.cfg.TrustDomain, e.Kv.Value)
	case KindAuthority:
		event.Authority, err = decodeAuthority(event.ID, e.Kv.Value)
	case KindFederatedBundle:
		event.Bundle, err = decodeFederated(s, event.ID, e.Kv.Value, decodeBundle)
	case KindRelationship:
		event.Relationship, err = decodeFederated(s, event.ID, e.Kv.Value, decodeRelationship)
	}
	if err != nil {
		s.cfg.Log.Error("a record cannot be read and is left out", "key", key, "error", err)
		gone := event.Kind != KindBundle && event.Kind != KindAuthority
		return Event{Kind: event.Kind, ID: event.ID, Deleted: true}, gone
	}
	return event, true
}

func kindOf(key string) (Kind, string) {
	if id, ok := strings.CutPrefix(key, entryDir); ok {
		return KindEntry, id
	}
	if id, ok := strings.CutPrefix(key, agentDir); ok {
		return KindAgent, id
	}
	if id, ok := strings.CutPrefix(key, authorityDir); ok {
		return KindAuthority, id
	}
	if id, ok := strings.CutPrefix(key, federatedDir); ok {
		return KindFederatedBundle, id
	}
	if id, ok := strings.CutPrefix(key, relationshipDir); ok {
		return KindRelationship, id
	}
	if key == bundleKey {
		return KindBundle, ""
	}
	return 0, ""
}
