package takeover

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-mtls/lanyard/internal/cli/entryfile"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

func agent(serial string, expires int64, banned bool) *types.Agent {
	if banned {
		serial = ""
	}
	return &types.Agent{
		Id:                   &types.SPIFFEID{TrustDomain: "td", Path: "/spire/agent/a"},
		X509SvidSerialNumber: serial, X509SvidExpiresAt: expires, Banned: banned,
	}
}

// TestAgentsAreTakenAsTheyAre holds what becomes of an agent that both issuers know, at 100.
func TestAgentsAreTakenAsTheyAre(t *testing.T) {
	for _, tc := range []struct {
		name        string
		there, here *types.Agent
		want        string
	}{
		{name: "not here", there: agent("1", 200, false), want: "missing"},
		{name: "expired", there: agent("1", 99, false), want: "skipped"},
		{name: "expired, here too", there: agent("1", 99, false), here: agent("1", 99, false), want: "skipped"},
		{name: "banned and expired", there: agent("", 99, true), want: "missing"},
		{name: "taken before", there: agent("1", 200, false), here: agent("1", 200, false), want: "present"},
		{name: "renewed there since", there: agent("2", 300, false), here: agent("1", 200, false), want: "renewed"},
		{name: "moved, and renewed here", there: agent("1", 200, false), here: agent("2", 300, false), want: "present"},
		{name: "banned there since", there: agent("", 200, true), here: agent("1", 200, false), want: "banned"},
		{name: "banned here", there: agent("2", 300, false), here: agent("", 200, true), want: "present"},
		{name: "banned at both", there: agent("", 200, true), here: agent("", 200, true), want: "present"},
	} {
		have := map[string]*types.Agent{}
		if tc.here != nil {
			have[entryfile.IDString(tc.here.Id)] = tc.here
		}
		p := &Part{}
		todo := compareAgents([]*types.Agent{tc.there}, have, 100, p)
		got := map[string]int{"missing": len(todo.missing), "renewed": len(todo.renewed), "banned": len(todo.banned), "skipped": len(p.Skipped), "present": p.Present}
		want := map[string]int{"missing": 0, "renewed": 0, "banned": 0, "skipped": 0, "present": 0}
		want[tc.want] = 1
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", tc.name, diff)
		}
	}
}

func TestChunksFitIntoACall(t *testing.T) {
	var list []*types.Entry
	for range pageSize + 1 {
		list = append(list, &types.Entry{Hint: "x"})
	}
	list = append(list, &types.Entry{Hint: string(make([]byte, maxBytes))}, &types.Entry{Hint: "y"})
	var sizes []int
	for _, c := range chunks(list) {
		sizes = append(sizes, len(c))
	}
	if diff := cmp.Diff([]int{pageSize, 1, 1, 1}, sizes); diff != "" {
		t.Error(diff)
	}
}
