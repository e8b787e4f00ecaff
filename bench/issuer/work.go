package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/svidv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// joins measures agents that join, each over a connection of its own, handshake included.
func (m *measurement) joins(ctx context.Context) error {
	bundle, err := m.bundle(ctx)
	if err != nil {
		return err
	}
	tokens := make([]string, m.set.joins)
	requests := make([]request, m.set.joins)
	for i := range requests {
		if requests[i], err = newRequest(); err != nil {
			return err
		}
	}
	used, _, err := m.spend(func() error {
		for i := range tokens {
			if tokens[i], err = m.token(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	m.add(secWork, "a join token", "us CPU", each(used, len(tokens)))
	used, took, err := m.spend(func() error {
		for i, token := range tokens {
			if _, err := m.join(ctx, bundle, token, requests[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	m.add(secWork, "a join", "us CPU", each(used, len(tokens)))
	m.add(secWork, "a join, one after the other", "us", each(took, len(tokens)))
	return nil
}

// svids measures signing for one agent, in batches of 50 and singly.
func (m *measurement) svids(ctx context.Context) error {
	bundle, err := m.bundle(ctx)
	if err != nil {
		return err
	}
	a, err := m.joined(ctx, bundle)
	if err != nil {
		return err
	}
	defer a.conn.Close()
	created, err := entryv1.NewEntryClient(m.server.admin).BatchCreateEntry(ctx, &entryv1.BatchCreateEntryRequest{Entries: []*types.Entry{{
		SpiffeId: &types.SPIFFEID{TrustDomain: trustDomain, Path: "/svids"}, ParentId: a.id,
		Selectors: []*types.Selector{{Type: "unix", Value: "uid:1"}},
	}}})
	if err != nil {
		return err
	}
	entry := created.GetResults()[0].GetEntry().GetId()
	req, err := newRequest()
	if err != nil {
		return err
	}
	client := svidv1.NewSVIDClient(a.conn)
	sign := func(ctx context.Context, n int) error {
		batch := &svidv1.BatchNewX509SVIDRequest{}
		for range n {
			batch.Params = append(batch.Params, &svidv1.NewX509SVIDParams{EntryId: entry, Csr: req.csr})
		}
		resp, err := client.BatchNewX509SVID(ctx, batch)
		if err != nil {
			return err
		}
		for _, r := range resp.GetResults() {
			if r.GetSvid() == nil {
				return errors.New(r.GetStatus().GetMessage())
			}
		}
		return nil
	}
	// spire-server reads its entries every 5 s only.
	for tries := 0; ; tries++ {
		if err := sign(ctx, 1); err == nil {
			break
		} else if tries == 100 {
			return err
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	if err := m.sign("an SVID, 50 in a call", m.set.svids/50, 50, func(n int) error { return sign(ctx, n) }); err != nil {
		return err
	}
	return m.sign("an SVID, one in a call", m.set.svids/5, 1, func(n int) error { return sign(ctx, n) })
}

func (m *measurement) sign(name string, calls, batch int, sign func(int) error) error {
	used, _, err := m.spend(func() error {
		for range calls {
			if err := sign(batch); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	m.add(secWork, name, "us CPU", each(used, calls*batch))
	return nil
}

// entries measures creating entries in batches of 500, and what the issuer uses with them.
func (m *measurement) entries(ctx context.Context) error {
	client := entryv1.NewEntryClient(m.server.admin)
	const batch = 500
	used, took, err := m.spend(func() error {
		for from := 0; from < m.set.entries; from += batch {
			req := &entryv1.BatchCreateEntryRequest{OutputMask: &types.EntryMask{}}
			for i := from; i < min(from+batch, m.set.entries); i++ {
				req.Entries = append(req.Entries, entry(i))
			}
			resp, err := client.BatchCreateEntry(ctx, req)
			if err != nil {
				return err
			}
			for _, r := range resp.GetResults() {
				if r.GetStatus().GetCode() != 0 {
					return errors.New(r.GetStatus().GetMessage())
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	m.add(secWork, "an entry, 500 in a call", "us CPU", each(used, m.set.entries))
	m.add(secWork, "entries a second", "1/s", float64(m.set.entries)/took.Seconds())
	if err := pause(ctx, 3*settle); err != nil {
		return err
	}
	if err := m.memory(fmt.Sprintf("%d entries", m.set.entries)); err != nil {
		return err
	}
	return m.watch(ctx, fmt.Sprintf("no agent, %d entries", m.set.entries))
}

// entry is the i-th: a tenth of a thousand nodes' workloads each, with the two selectors that are usual.
func entry(i int) *types.Entry {
	return &types.Entry{
		SpiffeId: &types.SPIFFEID{TrustDomain: trustDomain, Path: fmt.Sprintf("/ns/team-%d/sa/service-%d", i%100, i)},
		ParentId: &types.SPIFFEID{TrustDomain: trustDomain, Path: fmt.Sprintf("/node/%d", i%1000)},
		Selectors: []*types.Selector{
			{Type: "k8s", Value: fmt.Sprintf("ns:team-%d", i%100)}, {Type: "k8s", Value: fmt.Sprintf("sa:service-%d", i)},
		},
	}
}
