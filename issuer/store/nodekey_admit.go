package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// AdmitAgent writes the record of an agent that has proved itself by a method
// that keeps nothing here, in place of the one it had. Where the agent cannot
// prove itself again, its record must not be there yet: ErrExists. The error
// also wraps ErrAgentBanned; nothing is written with an error.
func (s *Store) AdmitAgent(ctx context.Context, agent *storepb.Agent) (*storepb.Agent, Revision, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer end()
	id, err := spiffeid.FromString(agent.GetSpiffeId())
	if err != nil {
		return nil, 0, fmt.Errorf("store: admit agent %q: %w", agent.GetSpiffeId(), err)
	}
	for range maxAttempts {
		admitted := proto.Clone(agent).(*storepb.Agent)
		rev, err := s.admitAgent(ctx, id, admitted)
		if !errors.Is(err, ErrConflict) {
			return admitted, rev, err
		}
	}
	return nil, 0, fmt.Errorf("agent %s: %w", id, ErrConflict)
}

// admitAgent tries once.
func (s *Store) admitAgent(ctx context.Context, id spiffeid.ID, agent *storepb.Agent) (Revision, error) {
	kvs, err := s.read(ctx, agentKey(id))
	if err != nil {
		return 0, s.fault("admit agent", err)
	}
	var t txn
	if err := t.admit(id, kvs[0], agent); err != nil {
		return 0, err
	}
	if kvs[0] != nil && !agent.CanReattest {
		return 0, fmt.Errorf("agent %s: %w", id, ErrExists)
	}
	resp, err := t.commit(ctx, s)
	switch {
	case err != nil:
		return 0, s.fault("admit agent", err)
	case !resp.Succeeded:
		return 0, ErrConflict
	}
	return Revision(resp.Header.Revision), nil
}
