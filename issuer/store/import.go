package store

import (
	"context"

	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// ImportAgents stores agents as another issuer knew them, in few transactions.
// The result for each is nil, or wraps ErrExists: an agent that is here already
// stays as it is.
func (s *Store) ImportAgents(ctx context.Context, agents []*storepb.Agent) ([]error, Revision, error) {
	panic("later")
}
