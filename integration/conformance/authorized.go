package conformance

import (
	"fmt"
	"slices"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// authorized waits until exactly these entries are the agent's: on SPIRE that takes until its cache is rebuilt.
func (c *C) authorized(a *agent, ids ...string) []*types.Entry {
	c.Helper()
	slices.Sort(ids)
	var entries []*types.Entry
	c.until("authorized entries", func() error {
		resp, err := a.entries.GetAuthorizedEntries(c.ctx, &entryv1.GetAuthorizedEntriesRequest{})
		if err != nil {
			return err
		}
		var got []string
		for _, e := range resp.Entries {
			got = append(got, e.Id)
		}
		slices.Sort(got)
		if !slices.Equal(got, ids) {
			return fmt.Errorf("got %v, want %v", got, ids)
		}
		entries = resp.Entries
		return nil
	})
	return entries
}
