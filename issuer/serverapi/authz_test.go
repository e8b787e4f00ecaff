package serverapi

import (
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/internal/testca"
)

// methods lists what a server serves, and whether it streams.
func methods(s *grpc.Server) map[string]bool {
	found := map[string]bool{}
	for service, info := range s.GetServiceInfo() {
		for _, m := range info.Methods {
			found["/"+service+"/"+m.Name] = m.IsServerStream || m.IsClientStream
		}
	}
	return found
}

func TestEveryMethodHasARule(t *testing.T) {
	r := newRig(t)
	served := methods(r.server.local)
	maps.Copy(served, methods(r.server.tcp))
	for method := range served {
		if _, ok := rules[method]; !ok {
			t.Errorf("%s is served and has no rule", method)
		}
	}
	for method, rule := range rules {
		if _, ok := served[method]; !ok {
			t.Errorf("%s has a rule and is not served", method)
		}
		if rule.allow == 0 {
			t.Errorf("%s is allowed to nobody", method)
		}
	}
	for method := range methods(r.server.tcp) {
		if rules[method].allow == callerLocal {
			t.Errorf("%s is served on TCP", method)
		}
	}
}

func TestUnknownMethodIsDenied(t *testing.T) {
	r := newRig(t)
	guard := newGuard(r.deps)
	admin := r.sign(adminID)
	for _, caller := range []Caller{{}, {Local: true}, {ID: admin.ID, Cert: admin.Certificates[0]}} {
		err := guard.authorize(t.Context(), "/spire.api.server.agent.v1.Agent/Made", caller)
		wantStatus(t, err, codes.PermissionDenied, "authorization denied for method /spire.api.server.agent.v1.Agent/Made")
	}
}

// rights is SPIRE's table, written down a second time by class: who is not
// named here is an operator's method.
var rights = map[string]string{
	"Bundle/GetBundle":              "any",
	"Agent/AttestAgent":             "any",
	"SVID/BatchNewX509SVID":         "agent",
	"SVID/NewJWTSVID":               "agent",
	"SVID/BatchNewWITSVID":          "agent",
	"Entry/GetAuthorizedEntries":    "agent",
	"Entry/SyncAuthorizedEntries":   "agent",
	"Agent/RenewAgent":              "agent",
	"Agent/PostStatus":              "agent",
	"Bundle/GetFederatedBundle":     "agent admin local",
	"SVID/NewDownstreamX509CA":      "downstream",
	"Bundle/PublishJWTAuthority":    "downstream",
	"Bundle/PublishWITAuthority":    "downstream",
	"Health/Check":                  "local",
	"Health/List":                   "local",
	"Health/Watch":                  "local",
	"Logger/GetLogger":              "local",
	"Logger/SetLogLevel":            "local",
	"Logger/ResetLogLevel":          "local",
	"Debug/GetInfo":                 "local",
	"Operations/GetCAPlan":          "local",
	"Operations/CreateToken":        "local",
	"Operations/ListTokens":         "local",
	"Operations/RevokeToken":        "local",
	"Operations/ImportAgents":       "local",
	"Operations/Backup":             "local",
	"everything else, of operators": "admin local",
}

// TestRights makes every call as every kind of caller, over the wire, and wants
// each allowed or refused as SPIRE does.
func TestRights(t *testing.T) {
	r := newRigWith(t, func(d *Deps) {
		otherAdmins(d)
		d.Level = new(slog.LevelVar)
	})
	other := testca.New(t, "other.test")
	r.federate("other.test", other)
	byEntry := func(path string, e registration.Entry) *grpc.ClientConn {
		e.SPIFFEID, e.ParentID = spiffeID(path), spiffeID("/spire/server")
		r.entry(e)
		return r.as(r.sign(e.SPIFFEID))
	}
	callers := []struct {
		name, class string
		conn        *grpc.ClientConn
	}{
		{"local", "local", r.local()},
		{"admin_ids", "admin", r.as(r.sign(adminID))},
		{"admin_ids of another trust domain", "admin", r.as(other.SVID(t, otherAdmin))},
		{"admin entry", "admin", byEntry("/operator", registration.Entry{Admin: true})},
		{"expired admin entry", "none", byEntry("/former", registration.Entry{Admin: true, ExpiresAt: time.Unix(1, 0)})},
		{"downstream entry", "downstream", byEntry("/nested", registration.Entry{Downstream: true})},
		{"agent", "agent", r.as(r.join())},
		{"workload", "none", byEntry("/web", registration.Entry{})},
		{"no certificate", "none", r.as(nil)},
	}
	served := methods(r.server.local)
	for _, method := range slices.Sorted(maps.Keys(served)) {
		short := method[strings.LastIndex(method, ".")+1:]
		allowed, ok := rights[short]
		if !ok {
			allowed = "admin local"
		}
		for _, caller := range callers {
			want := allowed == "any" || slices.Contains(strings.Fields(allowed), caller.class)
			err := invoke(t, caller.conn, method, served[method])
			if allowed == "local" && !want {
				if status.Code(err) != codes.Unimplemented { // not even served there
					t.Errorf("%s as %s: %v", short, caller.name, err)
				}
				continue
			}
			refused := status.Convert(err).Message() == "authorization denied for method "+method
			if refused && status.Code(err) != codes.PermissionDenied {
				t.Errorf("%s as %s: refused with %s", short, caller.name, status.Code(err))
			}
			if refused == want {
				t.Errorf("%s as %s: %v, want allowed = %v", short, caller.name, err, want)
			}
			if got := reason(err); refused && got != wantReason(allowed, caller.name) {
				t.Errorf("%s as %s: reason %s", short, caller.name, got)
			}
		}
	}
}

// wantReason is what a caller that is refused is told: who shows a certificate
// where an agent may call, that it is no agent.
func wantReason(allowed, caller string) types.PermissionDeniedDetails_Reason {
	if !strings.Contains(allowed, "agent") || caller == "local" || caller == "no certificate" {
		return types.PermissionDeniedDetails_UNKNOWN
	}
	return types.PermissionDeniedDetails_AGENT_NOT_ATTESTED
}

// invoke makes a call with an empty request, of which only the fate counts.
func invoke(t *testing.T, conn *grpc.ClientConn, method string, stream bool) error {
	t.Helper()
	if !stream {
		return conn.Invoke(t.Context(), method, &emptypb.Empty{}, &emptypb.Empty{})
	}
	s, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	if err := s.SendMsg(&emptypb.Empty{}); err != nil && err != io.EOF {
		return err
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	if err := s.RecvMsg(&emptypb.Empty{}); err != io.EOF {
		return err
	}
	return nil
}

func TestAgentIsToldWhyItIsRefused(t *testing.T) {
	r := newRig(t)
	post := func(conn *grpc.ClientConn) error {
		_, err := agentv1.NewAgentClient(conn).PostStatus(t.Context(), &agentv1.PostStatusRequest{AgentVersion: "1.0"})
		return err
	}
	denies := func(err error, want types.PermissionDeniedDetails_Reason) {
		t.Helper()
		wantStatus(t, err, codes.PermissionDenied, "authorization denied for method /spire.api.server.agent.v1.Agent/PostStatus")
		if got := reason(err); got != want {
			t.Errorf("reason = %s, want %s", got, want)
		}
	}
	admin := agentv1.NewAgentClient(r.local())

	denies(post(r.as(nil)), types.PermissionDeniedDetails_UNKNOWN)
	denies(post(r.as(r.sign(spiffeID("/spire/agent/join_token/unheard-of")))), types.PermissionDeniedDetails_AGENT_NOT_ATTESTED)

	banned := r.join()
	conn := r.as(banned)
	must(t, post(conn))
	_, err := admin.BanAgent(t.Context(), &agentv1.BanAgentRequest{Id: registration.IDProto(banned.ID)})
	must(t, err)
	denies(post(conn), types.PermissionDeniedDetails_AGENT_BANNED)

	evicted := r.join()
	conn = r.as(evicted)
	must(t, post(conn))
	_, err = admin.DeleteAgent(t.Context(), &agentv1.DeleteAgentRequest{Id: registration.IDProto(evicted.ID)})
	must(t, err)
	denies(post(conn), types.PermissionDeniedDetails_AGENT_NOT_ATTESTED)

	// Another certificate of the same agent was never stored.
	denies(post(r.as(r.sign(r.join().ID))), types.PermissionDeniedDetails_AGENT_NOT_ACTIVE)

	late := r.join()
	conn = r.as(late)
	must(t, post(conn))
	r.ahead.Store(int64(61 * time.Minute))
	denies(post(conn), types.PermissionDeniedDetails_AGENT_EXPIRED)
	// An open connection may still fetch the bundle.
	_, err = bundlev1.NewBundleClient(conn).GetBundle(t.Context(), &bundlev1.GetBundleRequest{})
	must(t, err)
}
