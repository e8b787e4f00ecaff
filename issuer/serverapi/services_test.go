package serverapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/debugv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/loggerv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/operationsv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

func TestLogger(t *testing.T) {
	var level slog.LevelVar
	r := newRigWith(t, func(d *Deps) { d.Level, d.LaunchLevel = &level, slog.LevelInfo })
	c := loggerv1.NewLoggerClient(r.local())
	want := func(got *types.Logger, err error, current types.LogLevel) {
		t.Helper()
		if err != nil || got.GetCurrentLevel() != current || got.GetLaunchLevel() != types.LogLevel_INFO {
			t.Errorf("logger = %v, %v, want %s", got, err, current)
		}
	}
	got, err := c.GetLogger(t.Context(), &loggerv1.GetLoggerRequest{})
	want(got, err, types.LogLevel_INFO)
	last := slog.LevelError + 100
	for _, name := range []types.LogLevel{1, 2, 3, 4, 5, 6, 7} { // PANIC to TRACE
		got, err = c.SetLogLevel(t.Context(), &loggerv1.SetLogLevelRequest{NewLevel: name})
		want(got, err, name)
		if level.Level() >= last {
			t.Errorf("%s is %s, not below %s", name, level.Level(), last)
		}
		last = level.Level()
	}
	got, err = c.ResetLogLevel(t.Context(), &loggerv1.ResetLogLevelRequest{})
	want(got, err, types.LogLevel_INFO)
	_, err = c.SetLogLevel(t.Context(), &loggerv1.SetLogLevelRequest{})
	wantStatus(t, err, codes.InvalidArgument, "newLevel value cannot be LogLevel_UNSPECIFIED")
	_, err = c.SetLogLevel(t.Context(), &loggerv1.SetLogLevelRequest{NewLevel: 99})
	wantStatus(t, err, codes.InvalidArgument, "unsupported log level")
	// Levels that have no name of SPIRE's are told as the next one.
	level.Set(slog.LevelInfo + 1)
	got, err = c.GetLogger(t.Context(), &loggerv1.GetLoggerRequest{})
	want(got, err, types.LogLevel_INFO)
	_, err = loggerv1.NewLoggerClient(newRig(t).local()).GetLogger(t.Context(), &loggerv1.GetLoggerRequest{})
	wantStatus(t, err, codes.Unimplemented, "changing the log level is not implemented")
}

func TestDebug(t *testing.T) {
	r := newRig(t)
	c := debugv1.NewDebugClient(r.local())
	svid := r.join()
	r.entry(registration.Entry{SPIFFEID: spiffeID("/web"), ParentID: svid.ID})
	info, err := c.GetInfo(t.Context(), &debugv1.GetInfoRequest{})
	must(t, err)
	if info.AgentsCount != 1 || info.EntriesCount != 1 || info.FederatedBundlesCount != 1 || info.Uptime < 0 {
		t.Errorf("info = %v", info)
	}
	if chain := info.SvidChain; len(chain) != 2 || chain[0].GetId().GetPath() != "/spire/server" || chain[1].GetId().GetTrustDomain() != "lanyard.test" ||
		chain[0].ExpiresAt == 0 || chain[1].Subject == "" {
		t.Errorf("chain = %v", info.SvidChain)
	}
	r.join()
	info, err = c.GetInfo(t.Context(), &debugv1.GetInfoRequest{})
	if err != nil || info.AgentsCount != 1 {
		t.Errorf("within 5 s: %v, %v", info, err)
	}
	r.ahead.Add(int64(6 * time.Second))
	info, err = c.GetInfo(t.Context(), &debugv1.GetInfoRequest{})
	if err != nil || info.AgentsCount != 2 || info.Uptime < 5 {
		t.Errorf("after 6 s: %v, %v", info, err)
	}
}

func TestHealth(t *testing.T) {
	var sick error
	r := newRigWith(t, func(d *Deps) {
		d.Healthy = func(ctx context.Context) error {
			return errors.Join(sick, d.canIssue(ctx))
		}
	})
	check := func(req *grpc_health_v1.HealthCheckRequest) (grpc_health_v1.HealthCheckResponse_ServingStatus, error) {
		resp, err := grpc_health_v1.NewHealthClient(r.local()).Check(t.Context(), req)
		return resp.GetStatus(), err
	}
	if got, err := check(&grpc_health_v1.HealthCheckRequest{}); err != nil || got != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("Check = %v, %v", got, err)
	}
	_, err := check(&grpc_health_v1.HealthCheckRequest{Service: "x"})
	wantStatus(t, err, codes.InvalidArgument, "per-service health is not supported")
	sick = errors.New("the disk is full")
	if got, err := check(&grpc_health_v1.HealthCheckRequest{}); err != nil || got != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("Check = %v, %v", got, err)
	}
	sick = nil
	r.ahead.Store(int64(25 * time.Hour)) // nothing rotates in this rig
	if got, err := check(&grpc_health_v1.HealthCheckRequest{}); err != nil || got != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("with an authority that expired: %v, %v", got, err)
	}
}

func TestCAPlan(t *testing.T) {
	r := newRig(t)
	plan, err := operationsv1.NewOperationsClient(r.local()).GetCAPlan(t.Context(), &operationsv1.GetCAPlanRequest{})
	must(t, err)
	kinds := map[string]bool{}
	for _, a := range plan.Authorities {
		kinds[a.Kind+" "+a.Status] = a.AuthorityId != "" && a.ExpiresAt > a.IssuedAt && a.IssuedAt > 0
	}
	if len(kinds) != 2 || !kinds["x509 active"] || !kinds["jwt active"] {
		t.Errorf("authorities = %v", plan.Authorities)
	}
	actions := map[string]bool{}
	for _, e := range plan.Events {
		actions[e.Kind+" "+e.Action] = e.At > 0
	}
	if !actions["x509 prepare"] || !actions["jwt prepare"] {
		t.Errorf("events = %v", plan.Events)
	}
}

func TestBackup(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 50_000) // 800 kB
	var failed error
	r := newRigWith(t, func(d *Deps) {
		d.Backup = func(_ context.Context, w io.Writer) error {
			_, err := w.Write(content[:100])
			_, err2 := w.Write(content[100:])
			return errors.Join(err, err2, failed)
		}
	})
	take := func(r *rig) ([]byte, error) {
		stream, err := operationsv1.NewOperationsClient(r.local()).Backup(t.Context(), &operationsv1.BackupRequest{})
		must(t, err)
		var got []byte
		for {
			resp, err := stream.Recv()
			if err == io.EOF {
				return got, nil
			}
			if err != nil {
				return got, err
			}
			if len(resp.Chunk) > backupChunk {
				t.Errorf("a chunk of %d bytes", len(resp.Chunk))
			}
			got = append(got, resp.Chunk...)
		}
	}
	got, err := take(r)
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	failed = errors.New("no space left")
	_, err = take(r)
	wantStatus(t, err, codes.Internal, "failed to take a backup: no space left")
	_, err = take(newRig(t))
	wantStatus(t, err, codes.Unimplemented, "taking a backup is not implemented")
}

func TestTokenOperations(t *testing.T) {
	r := newRig(t)
	ctx, c := t.Context(), operationsv1.NewOperationsClient(r.local())
	created, err := c.CreateToken(ctx, &operationsv1.CreateTokenRequest{
		Method: "join_key", Ttl: 600, MaxUses: 3, AllowedCidrs: []string{"10.1.2.3/8"}, Group: "edge",
		Selectors: []*types.Selector{{Type: "rack", Value: "7"}},
	})
	must(t, err)
	if created.Token == "" || created.Id == "" || created.ExpiresAt == 0 {
		t.Errorf("created = %v", created)
	}
	listed, err := c.ListTokens(ctx, &operationsv1.ListTokensRequest{})
	must(t, err)
	if len(listed.Tokens) != 1 {
		t.Fatalf("tokens = %v", listed)
	}
	if got := listed.Tokens[0]; got.Id != created.Id || got.Method != "join_key" || got.MaxUses != 3 || got.Uses != 0 || got.Group != "edge" ||
		got.AllowedCidrs[0] != "10.0.0.0/8" || got.Selectors[0].Value != "7" || got.ExpiresAt != created.ExpiresAt {
		t.Errorf("token = %v", got)
	}
	_, err = c.RevokeToken(ctx, &operationsv1.RevokeTokenRequest{Id: created.Id})
	must(t, err)
	_, err = c.RevokeToken(ctx, &operationsv1.RevokeTokenRequest{Id: created.Id})
	if status.Code(err) != codes.NotFound {
		t.Errorf("revoked twice: %v", err)
	}
	_, err = c.RevokeToken(ctx, &operationsv1.RevokeTokenRequest{})
	wantStatus(t, err, codes.InvalidArgument, "missing token ID")
	for name, req := range map[string]*operationsv1.CreateTokenRequest{
		"no method":            {Ttl: 1},
		"no ttl":               {Method: "join_key"},
		"negative ttl":         {Method: "join_key", Ttl: -1 << 63},
		"endless ttl":          {Method: "join_key", Ttl: 1<<63 - 1},
		"negative uses":        {Method: "join_key", Ttl: 1, MaxUses: -1},
		"no CIDR":              {Method: "join_key", Ttl: 1, AllowedCidrs: []string{"10.0.0.1"}},
		"bad selector":         {Method: "join_key", Ttl: 1, Selectors: []*types.Selector{{Type: "a:b", Value: "c"}}},
		"bad agent ID":         {Method: "join_key", Ttl: 1, AgentId: &types.SPIFFEID{TrustDomain: "other.test", Path: "/x"}},
		"join_token with uses": {Method: "join_token", Ttl: 1, MaxUses: 2},
	} {
		if _, err := c.CreateToken(ctx, req); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	if bytes.Contains([]byte(r.log.String()), []byte(created.Token)) {
		t.Error("the log has the token")
	}
}
