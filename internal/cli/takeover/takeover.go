// Package takeover owns moving a trust domain from one running issuer, a spire-server as a rule, to a Lanyard issuer: records
// over both admin APIs, and authorities into both bundles, so that agents move without joining again. It takes, and changes
// nothing of the other issuer but its bundle. It does not move agents: their operator points them at the new address.
package takeover

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/operationsv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/trustdomainv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// Config says what to take from where.
type Config struct {
	// From is the issuer to take over from, To is ours; both by their admin sockets.
	From, To grpc.ClientConnInterface
	// DryRun only tells what would be done.
	DryRun bool
	// Update makes entries that are here already, and differ, as they are there.
	Update bool
	// Now is Unix seconds.
	Now int64
	// Progress starts a bar for so many things.
	Progress func(what string, total int) *cli.Progress
}

// Run takes over. What is taken already stays as it is, so that it may be repeated: right before the agents are moved, to take
// what changed meanwhile. The report tells of everything that was tried, also where the error says that it ended too early.
func Run(ctx context.Context, c Config) (*Report, error) {
	m := &move{Config: c, report: &Report{DryRun: c.DryRun, Parts: []*Part{}, Notes: []string{}}, from: clientsOf(c.From), to: clientsOf(c.To)}
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		// Authorities go first: with them agents trust each other's issuer whatever happens then. Bundles go before the
		// entries that federate with them, and agents last, when everything that is theirs is here.
		{"authorities", m.authorities}, {"federated bundles", m.bundles}, {"federation relationships", m.relationships},
		{"entries", m.entries}, {"agents", m.agents},
	} {
		if err := step.do(ctx); err != nil {
			return m.report, fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return m.report, nil
}

// move is one takeover.
type move struct {
	Config
	report   *Report
	from, to clients

	oldBundle *types.Bundle
}

type clients struct {
	bundle     bundlev1.BundleClient
	domain     trustdomainv1.TrustDomainClient
	entry      entryv1.EntryClient
	agent      agentv1.AgentClient
	operations operationsv1.OperationsClient
}

func clientsOf(cc grpc.ClientConnInterface) clients {
	return clients{
		bundlev1.NewBundleClient(cc), trustdomainv1.NewTrustDomainClient(cc), entryv1.NewEntryClient(cc), agentv1.NewAgentClient(cc),
		operationsv1.NewOperationsClient(cc),
	}
}

// pageSize is how many things are asked for, or sent, at once.
const pageSize = 500

// all reads every page of a list.
func all[T any](next func(token string) (items []T, nextToken string, err error)) ([]T, error) {
	var list []T
	for token := ""; ; {
		items, following, err := next(token)
		if err != nil {
			return nil, err
		}
		list = append(list, items...)
		if token = following; token == "" {
			return list, nil
		}
	}
}

// maxBytes bounds a call: gRPC servers take 4 MiB at once.
const maxBytes = 3 << 20

// chunks cuts a list into calls.
func chunks[M proto.Message](list []M) [][]M {
	var out [][]M
	for start := 0; start < len(list); {
		end, size := start, 0
		for end < len(list) && end-start < pageSize && (end == start || size+proto.Size(list[end]) < maxBytes) {
			size += proto.Size(list[end]) + 8
			end++
		}
		out = append(out, list[start:end])
		start = end
	}
	return out
}
