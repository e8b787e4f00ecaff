package adminapi_test

import (
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentadminv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentdebugv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentloggerv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/nodeagent/adminapi"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

// Delegates may be given the socket by its mode: what is the operator's is not theirs by that.
func TestOperatorsAlone(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("becomes another user, which takes root")
	}
	w := newWorld(t)
	w.apply()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+w.path)
	out, err := cmd.CombinedOutput()
	if want := "PermissionDenied this is for root and the agent's own user (uid 0); you are uid 65534\n"; err != nil || string(out) != want {
		t.Errorf("nobody is told %q, %v", out, err)
	}
	if !strings.Contains(w.log.String(), "uid=65534") {
		t.Errorf("the log says %s", w.log)
	}
}

func TestLogger(t *testing.T) {
	var level slog.LevelVar
	level.Set(slog.LevelWarn)
	w := newWorld(t, func(d *adminapi.Deps) { d.Level, d.LaunchLevel = &level, slog.LevelWarn })
	logger := agentloggerv1.NewLoggerClient(w.conn)
	want := &types.Logger{CurrentLevel: types.LogLevel_WARN, LaunchLevel: types.LogLevel_WARN}
	check := func(what string, got *types.Logger, err error) {
		t.Helper()
		if diff := cmp.Diff(want, got, protocmp.Transform()); err != nil || diff != "" {
			t.Errorf("%s: %v %s", what, err, diff)
		}
	}
	got, err := logger.GetLogger(t.Context(), &agentloggerv1.GetLoggerRequest{})
	check("at first", got, err)
	for name, n := range types.LogLevel_value {
		if n == 0 {
			continue
		}
		want.CurrentLevel = types.LogLevel(n)
		got, err = logger.SetLogLevel(t.Context(), &agentloggerv1.SetLogLevelRequest{NewLevel: types.LogLevel(n)})
		check(name, got, err)
	}
	_, err = logger.SetLogLevel(t.Context(), &agentloggerv1.SetLogLevelRequest{})
	wantStatus(t, "none", err, codes.InvalidArgument, "newLevel value cannot be LogLevel_UNSPECIFIED")
	_, err = logger.SetLogLevel(t.Context(), &agentloggerv1.SetLogLevelRequest{NewLevel: 99})
	wantStatus(t, "99", err, codes.InvalidArgument, "unsupported log level")
	want.CurrentLevel = types.LogLevel_WARN
	got, err = logger.ResetLogLevel(t.Context(), &agentloggerv1.ResetLogLevelRequest{})
	check("reset", got, err)
	if level.Level() != slog.LevelWarn {
		t.Errorf("the level is %s", level.Level())
	}
	_, err = agentloggerv1.NewLoggerClient(newWorld(t).conn).GetLogger(t.Context(), &agentloggerv1.GetLoggerRequest{})
	wantStatus(t, "without a level", err, codes.Unimplemented, "can't be changed")
}

func TestGetInfo(t *testing.T) {
	var contact upstream.Contact
	var chain []*x509.Certificate
	w := newWorld(t, func(d *adminapi.Deps) {
		d.Contact = func() upstream.Contact { return contact }
		d.SVID = func() []*x509.Certificate { return chain }
		d.Started = time.Now().Add(-time.Minute)
	})
	debug := agentdebugv1.NewDebugClient(w.conn)
	info, err := debug.GetInfo(t.Context(), &agentdebugv1.GetInfoRequest{})
	if err != nil || info.LastSyncSuccess != 0 || len(info.SvidChain) != 0 || info.Uptime != 60 {
		t.Errorf("before it joined: %v, %v", info, err)
	}

	w2 := newWorld(t, func(d *adminapi.Deps) {
		d.Contact = func() upstream.Contact { return contact }
		d.SVID = func() []*x509.Certificate { return chain }
	})
	contact.Last = time.Unix(1e9, 0)
	chain = w2.ca.SVID(t, "spiffe://example.org/spire/agent/x").Certificates
	w2.apply(w2.entry("/web", "unix:uid:7"))
	want(t, "an SVID", got(t, w2.svids(0, "unix:uid:7")), "/web")
	info, err = agentdebugv1.NewDebugClient(w2.conn).GetInfo(t.Context(), &agentdebugv1.GetInfoRequest{})
	//lint:ignore SA1019 spire-agent tells SvidsCount still
	if err != nil || info.LastSyncSuccess != 1e9 || info.CachedX509SvidsCount < 1 || info.SvidsCount != info.CachedX509SvidsCount {
		t.Fatalf("got %v, %v", info, err)
	}
	if len(info.SvidChain) != 2 || info.SvidChain[0].Id.Path != "/spire/agent/x" || info.SvidChain[0].ExpiresAt != chain[0].NotAfter.Unix() {
		t.Errorf("chain %v", info.SvidChain)
	}
}

// A process chooses the path of its executable: it must neither keep the operator
// from asking about it, nor speak to the operator's terminal.
func TestExplainShowsPathsAsTheyAre(t *testing.T) {
	w := newWorld(t)
	pid, _ := process(t)
	w.people.set(pid, result("unix:path:/tmp/\xff\x1b[2Jé\nit has the identity\u202e\u009b1m"))
	w.apply(w.entry("/web", "unix:uid:7"))
	x, err := agentadminv1.NewAdminClient(w.conn).Explain(t.Context(), &agentadminv1.ExplainRequest{Pid: int32(pid)})
	if err != nil {
		t.Fatal(err)
	}
	want := []*types.Selector{{Type: "unix", Value: `path:/tmp/\xff\x1b[2Jé\nit has the identity\u202e\u009b1m`}}
	if diff := cmp.Diff(want, x.Selectors, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestExplain(t *testing.T) {
	agent := spiffeid.RequireFromString("spiffe://example.org/spire/agent/x")
	w := newWorld(t, func(d *adminapi.Deps) { d.ID = func() spiffeid.ID { return agent } })
	admin := agentadminv1.NewAdminClient(w.conn)
	pid, _ := process(t)
	r := result("unix:uid:7", "unix:path:/bin/web", "docker:env:PASSWORD=secret", "docker:env:TIER=gold")
	r.Reports = append(r.Reports, workloadattest.Report{Plugin: "docker", Took: time.Millisecond, Selectors: 2}, workloadattest.Report{Plugin: "k8s", Err: errors.New("kubelet is away")})
	w.people.set(pid, r)
	w.apply(w.entry("/web", "unix:uid:7"), w.entry("/gold", "docker:env:TIER=gold", "systemd:id:x"))
	x, err := admin.Explain(t.Context(), &agentadminv1.ExplainRequest{Pid: int32(pid)})
	if err != nil {
		t.Fatal(err)
	}
	if x.Verdict != "it has the identity spiffe://example.org/web (entry web)" || x.Agent.Path != "/spire/agent/x" || x.Entries != 3 {
		t.Errorf("got %v", x)
	}
	if len(x.Matches) != 1 || len(x.Near) != 2 || x.Near[1].Id != "gold" || len(x.Near[1].Missing) != 1 || x.Near[1].Missing[0].Value != "id:x" {
		t.Errorf("matches %v, near %v", x.Matches, x.Near)
	}
	text := x.String()
	for _, want := range []string{"env:TIER=gold", "env:PASSWORD=(hidden)", "kubelet is away", "no systemd attestor", "/bin/web"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
	if strings.Contains(text, "secret") || strings.Contains(w.log.String(), "secret") {
		t.Error("the value of a variable is told that no entry names")
	}
	_, err = admin.Explain(t.Context(), &agentadminv1.ExplainRequest{Pid: 1 << 30})
	wantStatus(t, "nobody", err, codes.NotFound, "there is no process 1073741824")
	_, err = admin.Explain(t.Context(), &agentadminv1.ExplainRequest{})
	wantStatus(t, "no number", err, codes.InvalidArgument, "pid must be above 0")
}
