package store

import (
	"context"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// ImportAgents stores agents as another issuer knew them, in few transactions.
// The result for each is nil, or wraps ErrExists: an agent that is here already
// stays as it is. Where a transaction cannot be made, the agents in it and those
// after it have the error for a result, which is also returned.
func (s *Store) ImportAgents(ctx context.Context, agents []*storepb.Agent) ([]error, Revision, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer end()
	results := make([]error, len(agents))
	seen := make(map[string]bool, len(agents))
	var todo []imported
	for i, a := range agents {
		im := imported{result: &results[i]}
		if im.id, im.data, results[i] = s.imported(a); results[i] != nil {
			continue
		}
		if seen[a.SpiffeId] {
			results[i] = fmt.Errorf("agent %s: %w: it is in the import twice", im.id, ErrExists)
			continue
		}
		seen[a.SpiffeId] = true
		todo = append(todo, im)
	}
	var rev Revision
	for len(todo) > 0 {
		n := min(len(todo), batchEntries)
		done, err := s.importBatch(ctx, todo[:n])
		if err != nil {
			err = s.fault("import agents", err)
			for _, im := range todo {
				*im.result = err
			}
			return results, rev, err
		}
		rev = max(rev, done)
		todo = todo[n:]
	}
	return results, rev, nil
}

// imported is an agent on its way into the store.
type imported struct {
	id     spiffeid.ID
	data   string
	result *error
}

func (s *Store) imported(a *storepb.Agent) (id spiffeid.ID, data string, err error) {
	if id, err = spiffeid.FromString(a.GetSpiffeId()); err != nil {
		return id, "", fmt.Errorf("agent ID %q: %w", a.GetSpiffeId(), err)
	}
	if !id.MemberOf(s.cfg.TrustDomain) || id.Path() == "" {
		return id, "", fmt.Errorf("agent ID %s is not one of trust domain %s", id, s.cfg.TrustDomain.Name())
	}
	data, err = encodeBounded("agent "+id.String(), a)
	return id, data, err
}

// importBatch stores those that are not there, in one transaction.
func (s *Store) importBatch(ctx context.Context, batch []imported) (rev Revision, err error) {
	for range maxAttempts {
		var t txn
		for _, im := range batch {
			t.unchanged(agentKey(im.id), 0)
			t.put(agentKey(im.id), im.data)
			t.orElse = append(t.orElse, clientv3.OpGet(agentKey(im.id), clientv3.WithKeysOnly()))
		}
		resp, err := t.commit(ctx, s)
		if err != nil {
			return rev, err
		}
		rev = Revision(resp.Header.Revision)
		if resp.Succeeded {
			return rev, nil
		}
		var left []imported
		for i, im := range batch {
			if first(resp.Responses[i].GetResponseRange().Kvs) == nil {
				left = append(left, im)
				continue
			}
			*im.result = fmt.Errorf("agent %s: %w", im.id, ErrExists)
		}
		if batch = left; len(batch) == 0 {
			return rev, nil
		}
	}
	return rev, ErrConflict
}
