package takeover

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/cli/entryfile"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/operationsv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// agents takes the agents, with what their issuer knows of each.
func (m *move) agents(ctx context.Context) error {
	theirs, err := agents(ctx, m.from.agent)
	if err != nil {
		return err
	}
	ours, err := agents(ctx, m.to.agent)
	if err != nil {
		return err
	}
	have := map[string]*types.Agent{}
	for _, a := range ours {
		have[entryfile.IDString(a.Id)] = a
	}
	p := m.report.part("agents")
	todo := compareAgents(theirs, have, m.Now, p)
	m.noteMethods(theirs)
	if m.DryRun {
		p.Taken, p.Updated = len(todo.missing), len(todo.renewed)+len(todo.banned)
		return nil
	}
	return m.sendAll(ctx, p, todo)
}

// agentMoves are the agents to do something about.
type agentMoves struct {
	missing []*types.Agent // not here
	renewed []*types.Agent // here, but with the SVID they had there before
	banned  []*types.Agent // there, and not here
}

// compareAgents says what is to be done about each agent of the other issuer; have are ours.
func compareAgents(theirs []*types.Agent, have map[string]*types.Agent, now int64, p *Part) agentMoves {
	var todo agentMoves
	for _, a := range theirs {
		name := entryfile.IDString(a.Id)
		here := have[name]
		switch {
		case !a.Banned && a.X509SvidExpiresAt < now:
			p.skip(name, "its SVID expired: it has to join again, here")
		case here == nil:
			todo.missing = append(todo.missing, a)
		case a.Banned && !here.Banned:
			todo.banned = append(todo.banned, a)
		case here.Banned || here.X509SvidSerialNumber == a.X509SvidSerialNumber || here.X509SvidExpiresAt > a.X509SvidExpiresAt:
			p.Present++ // as it was, or it has moved here and renewed its SVID
		default:
			todo.renewed = append(todo.renewed, a)
		}
	}
	return todo
}

// sendAll does it.
func (m *move) sendAll(ctx context.Context, p *Part, todo agentMoves) error {
	bar := m.Progress("agents", len(todo.missing)+len(todo.renewed)+len(todo.banned))
	defer bar.End()
	for _, a := range todo.banned {
		_, err := m.to.agent.BanAgent(ctx, &agentv1.BanAgentRequest{Id: a.Id})
		p.result(entryfile.IDString(a.Id), message(err), &p.Updated)
		bar.Add(1)
	}
	if err := m.sendAgents(ctx, p, todo.missing, &p.Taken, bar); err != nil {
		return err
	}
	// The API takes no agent that is here already, so that it can't undo a renewal: one that is behind goes and comes again.
	for _, batch := range chunks(todo.renewed) {
		for _, a := range batch {
			if _, err := m.to.agent.DeleteAgent(ctx, &agentv1.DeleteAgentRequest{Id: a.Id}); err != nil {
				return fmt.Errorf("%s: %w", entryfile.IDString(a.Id), err)
			}
		}
		if err := m.sendAgents(ctx, p, batch, &p.Updated, bar); err != nil {
			return err
		}
	}
	return nil
}

// sendAgents has this issuer take agents.
func (m *move) sendAgents(ctx context.Context, p *Part, list []*types.Agent, count *int, bar *cli.Progress) error {
	for _, batch := range chunks(list) {
		resp, err := m.to.operations.ImportAgents(ctx, &operationsv1.ImportAgentsRequest{Agents: batch, X509Authorities: m.signers()})
		if status.Code(err) == codes.Unimplemented {
			return cli.Hint(err, "only a Lanyard issuer can take agents: is -socketPath that of one?")
		}
		if err != nil {
			return err
		}
		for i, r := range resp.Results {
			if i < len(batch) {
				p.result(entryfile.IDString(batch[i].Id), r.Status, count)
			}
		}
		bar.Add(len(batch))
	}
	return nil
}

// signers are the authorities of the other issuer that came into this one's bundle.
func (m *move) signers() []*types.X509Certificate {
	var live []*types.X509Certificate
	for _, a := range m.oldBundle.X509Authorities {
		if cert, err := x509.ParseCertificate(a.Asn1); err == nil && cert.NotAfter.Unix() >= m.Now && !a.Tainted {
			live = append(live, a)
		}
	}
	return live
}

// noteMethods says by which methods agents will want to join here.
func (m *move) noteMethods(theirs []*types.Agent) {
	methods := map[string]int{}
	once := 0
	for _, a := range theirs {
		switch {
		case a.Banned || a.X509SvidExpiresAt < m.Now:
		case a.CanReattest:
			methods[a.AttestationType]++
		default:
			once++
		}
	}
	if once > 0 {
		m.report.note("%s can't join again without a new token: move them before their SVIDs expire", cli.Count(once, "agent", "agents"))
	}
	if methods["join_key"] > 0 {
		m.report.note("the keys of nodes that joined by join_key don't come along: they go on with the SVIDs they have, but join again with a new token only. To move a Lanyard issuer, use backup and restore")
	}
	var list []string
	for name, n := range methods {
		list = append(list, fmt.Sprintf("%s (%d)", name, n))
	}
	slices.Sort(list)
	if len(list) > 0 {
		m.report.note("agents can join again by %s: this issuer needs the same NodeAttestor plugins for when they do", strings.Join(list, ", "))
	}
}

func agents(ctx context.Context, c agentv1.AgentClient) ([]*types.Agent, error) {
	return all(func(token string) ([]*types.Agent, string, error) {
		page, err := c.ListAgents(ctx, &agentv1.ListAgentsRequest{PageSize: pageSize, PageToken: token})
		return page.GetAgents(), page.GetNextPageToken(), err
	})
}
