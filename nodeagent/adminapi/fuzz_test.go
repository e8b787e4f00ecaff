package adminapi

import (
	"context"
	"log/slog"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/delegatedidentityv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

// nobody attests nothing.
type nobody struct{}

func (nobody) AttestContext(context.Context) (workloadattest.Result, error) {
	return workloadattest.Result{}, workloadattest.ErrGone
}

func (nobody) AttestPID(context.Context, int) (workloadattest.Result, workloadattest.ProcessInfo, error) {
	return workloadattest.Result{}, workloadattest.ProcessInfo{}, workloadattest.ErrGone
}

// Whatever a delegate sends names either selectors that an entry could have, or nobody.
func FuzzDelegatesSubject(f *testing.F) {
	for _, req := range []*delegatedidentityv1.FetchJWTSVIDsRequest{
		{Audience: []string{"a"}, Selectors: []*types.Selector{{Type: "unix", Value: "uid:1"}}},
		{Audience: []string{"a"}, Pid: 1}, {Pid: 1, Selectors: []*types.Selector{{}}}, {Pid: -1}, {},
		{Selectors: []*types.Selector{{Type: "a:b", Value: "c"}, {Type: "a", Value: "a"}, {Type: "a", Value: "a"}}},
	} {
		seed, err := proto.Marshal(req)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seed)
	}
	d := &delegates{attestor: nobody{}, log: slog.New(slog.DiscardHandler)}
	f.Fuzz(func(t *testing.T, data []byte) {
		var req delegatedidentityv1.FetchJWTSVIDsRequest
		if proto.Unmarshal(data, &req) != nil {
			return
		}
		who, err := d.subject(t.Context(), req.GetPid(), req.GetSelectors())
		if err != nil {
			if code := status.Code(err); code != codes.InvalidArgument && code != codes.Unavailable {
				t.Errorf("%v", err)
			}
			return
		}
		if req.GetPid() != 0 || len(req.GetSelectors()) == 0 {
			t.Errorf("a subject of pid %d and %d selectors", req.GetPid(), len(req.GetSelectors()))
		}
		for _, s := range who.who.Caller().Selectors {
			if again, err := registration.ParseSelector(s.String()); err != nil || again != s {
				t.Errorf("selector %q: %v", s, err)
			}
		}
	})
}
