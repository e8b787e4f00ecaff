package main

import (
	"context"

	"google.golang.org/grpc"
)

// calls measures the CPU time that the agent uses for fetching an SVID it holds.
func (m *measurement) calls(ctx context.Context) error {
	conn, err := dial(m.programs.socket())
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := m.call(ctx, "on an open connection", func() error { return fetchOnce(ctx, conn) }); err != nil {
		return err
	}
	return m.call(ctx, "on a new connection", func() error {
		conn, err := dial(m.programs.socket())
		if err != nil {
			return err
		}
		defer conn.Close()
		return fetchOnce(ctx, conn)
	})
}

func fetchOnce(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	_, _, err := fetch(ctx, conn)
	return err
}

// call makes so many calls, after a tenth of them that don't count.
func (m *measurement) call(ctx context.Context, name string, call func() error) error {
	calls := func(n int) error {
		for range n {
			if err := call(); err != nil {
				return err
			}
		}
		return nil
	}
	if err := calls(m.set.calls / 10); err != nil {
		return err
	}
	if err := m.settle(ctx); err != nil {
		return err
	}
	used, err := m.spend(func() error { return calls(m.set.calls) })
	if err != nil {
		return err
	}
	m.add(secCalls, name, "us CPU", float64(used.Microseconds())/float64(m.set.calls))
	return nil
}
