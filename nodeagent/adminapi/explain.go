package adminapi

import (
	"context"
	"errors"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentadminv1"
	"github.com/lanyard-mtls/lanyard/nodeagent/svidcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadapi/explain"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

// adminService is lanyard.agent.v1.Admin.
type adminService struct {
	agentadminv1.UnsafeAdminServer
	operators *operators
	deps      Deps
}

// Explain attests a process as if it called, and tells what it is given and what
// not. It has nothing signed.
func (s *adminService) Explain(ctx context.Context, req *agentadminv1.ExplainRequest) (_ *agentadminv1.ExplainResponse, err error) {
	defer s.deps.ended(agentadminv1.Admin_Explain_FullMethodName, time.Now(), &err)
	if err := s.operators.check(ctx, agentadminv1.Admin_Explain_FullMethodName); err != nil {
		return nil, err
	}
	if req.GetPid() <= 0 {
		return nil, status.Error(codes.InvalidArgument, "pid must be above 0")
	}
	result, process, err := s.deps.Attestor.AttestPID(ctx, int(req.GetPid()))
	switch {
	case ctx.Err() != nil:
		return nil, status.FromContextError(ctx.Err()).Err()
	case errors.Is(err, workloadattest.ErrGone):
		return nil, status.Errorf(codes.NotFound, "there is no process %d in the agent's PID namespace", req.GetPid())
	case err != nil:
		// The operator is told what callers are not.
		return nil, status.Errorf(codes.Unavailable, "process %d could not be attested: %v", req.GetPid(), err)
	}
	c := explain.Case{Attested: result, Entries: s.deps.Cache.Explain(svidcache.Caller{Selectors: result.Selectors})}
	agent := s.deps.agent()
	resp := &agentadminv1.ExplainResponse{
		Process:   processProto(process),
		Selectors: registration.SelectorsProto(c.Visible()),
		Entries:   int32(c.Entries.Entries),
		Verdict:   c.Verdict(),
		Notes:     c.Notes(agent),
	}
	if !agent.ID.IsZero() {
		resp.Agent = registration.IDProto(agent.ID)
		resp.Parent = resp.Agent
		if !c.Entries.Parent.IsZero() {
			resp.Parent = registration.IDProto(c.Entries.Parent)
		}
	}
	for _, r := range result.Reports {
		a := &agentadminv1.ExplainResponse_Attestor{Name: r.Plugin, Microseconds: r.Took.Microseconds(), Selectors: int32(r.Selectors)}
		if r.Err != nil {
			a.Error = strings.ReplaceAll(r.Err.Error(), "\n", "; ")
		}
		resp.Attestors = append(resp.Attestors, a)
	}
	for _, n := range c.Entries.Matches {
		resp.Matches = append(resp.Matches, entryProto(n))
	}
	for _, n := range c.Entries.Near {
		resp.Near = append(resp.Near, entryProto(n))
	}
	printable(resp.ProtoReflect())
	return resp, nil
}

// agent is what the services tell of the agent itself.
func (d Deps) agent() explain.Agent {
	a := explain.Agent{Now: time.Now()}
	if d.ID != nil {
		a.ID = d.ID()
	}
	if d.Contact != nil {
		a.Contact = d.Contact()
	} else {
		a.Contact.Last = a.Now // nothing is known to be wrong
	}
	return a
}

func processProto(p workloadattest.ProcessInfo) *agentadminv1.ExplainResponse_Process {
	out := &agentadminv1.ExplainResponse_Process{
		Pid: int32(p.PID), Uid: p.UID, Gid: p.GID, Executable: p.Executable, ContainerId: p.ContainerID,
	}
	if !p.Started.IsZero() {
		out.StartedAt = p.Started.Unix()
	}
	return out
}

func entryProto(n svidcache.Near) *agentadminv1.ExplainResponse_Entry {
	return &agentadminv1.ExplainResponse_Entry{
		Id: n.Entry.ID, SpiffeId: n.Entry.Name(), Hint: n.Entry.Hint,
		Selectors: registration.SelectorsProto(n.Entry.Selectors), Missing: registration.SelectorsProto(n.Missing),
		Withheld: n.Withheld, State: n.State,
	}
}
