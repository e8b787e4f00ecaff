package conformance

import (
	"io"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/debugv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/localauthorityv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/loggerv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/svidv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/trustdomainv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// method is one RPC: its full name, and whether it streams.
type method struct {
	name   string
	stream bool
}

// short is the name as "Service/Rpc".
func (m method) short() string { return m.name[strings.LastIndex(m.name, ".")+1:] }

// methods is SPIRE's whole server API.
func methods() []method {
	var all []method
	for _, service := range []grpc.ServiceDesc{
		agentv1.Agent_ServiceDesc, bundlev1.Bundle_ServiceDesc, entryv1.Entry_ServiceDesc, svidv1.SVID_ServiceDesc,
		trustdomainv1.TrustDomain_ServiceDesc, localauthorityv1.LocalAuthority_ServiceDesc, loggerv1.Logger_ServiceDesc,
		debugv1.Debug_ServiceDesc, grpc_health_v1.Health_ServiceDesc,
	} {
		for _, m := range service.Methods {
			all = append(all, method{"/" + service.ServiceName + "/" + m.MethodName, false})
		}
		for _, s := range service.Streams {
			all = append(all, method{"/" + service.ServiceName + "/" + s.StreamName, true})
		}
	}
	return all
}

// rights are who may call what; a method that is not named here is an operator's.
func rights(short string) string {
	switch short {
	case "Bundle/GetBundle", "Agent/AttestAgent":
		return "any"
	case "SVID/BatchNewX509SVID", "SVID/NewJWTSVID", "SVID/BatchNewWITSVID", "Entry/GetAuthorizedEntries",
		"Entry/SyncAuthorizedEntries", "Agent/RenewAgent", "Agent/PostStatus":
		return "agent"
	case "Bundle/GetFederatedBundle":
		return "agent admin local"
	case "SVID/NewDownstreamX509CA", "Bundle/PublishJWTAuthority", "Bundle/PublishWITAuthority":
		return "downstream"
	case "Debug/GetInfo", "Logger/GetLogger", "Logger/SetLogLevel", "Logger/ResetLogLevel", "Health/Check", "Health/List", "Health/Watch":
		return "local"
	}
	return "admin local"
}

// caller is a class of callers, by one of them.
type caller struct {
	name, class string
	conn        *grpc.ClientConn
	reason      types.PermissionDeniedDetails_Reason // why an agent's method is refused
}

func accessChecks() []Check {
	var checks []Check
	for _, who := range []struct {
		name string
		make func(c *C) caller
	}{
		{"nobody", func(c *C) caller {
			return caller{"nobody", "none", c.dial(nil), types.PermissionDeniedDetails_UNKNOWN}
		}},
		{"local", func(c *C) caller { return caller{"local", "local", c.conn, types.PermissionDeniedDetails_UNKNOWN} }},
		{"admin by admin_ids", func(c *C) caller { return c.byID(adminPath, "admin") }},
		{"admin by entry", func(c *C) caller { return c.byEntry("admin", &types.Entry{Admin: true}) }},
		{"foreign admin", foreignCaller},
		{"downstream", func(c *C) caller { return c.byEntry("downstream", &types.Entry{Downstream: true}) }},
		{"admin and downstream", func(c *C) caller { return c.byEntry("admin downstream", &types.Entry{Admin: true, Downstream: true}) }},
		{"workload", func(c *C) caller { return c.byEntry("none", &types.Entry{}) }},
		{"unregistered workload", func(c *C) caller { return c.byID("/conformance/unheard-of", "none") }},
		{"active agent", func(c *C) caller { return caller{"active agent", "agent", c.join().conn, 0} }},
		{"banned agent", bannedCaller},
		{"evicted agent", evictedCaller},
		{"superseded agent", supersededCaller},
		{"renewed agent, not yet used", renewedCaller},
		{"renewed agent, former SVID", formerCaller},
	} {
		checks = append(checks, Check{"access/" + who.name, func(c *C) { c.access(who.make(c)) }})
	}
	return checks
}

// access makes every call with an empty request, of which only the refusal counts.
func (c *C) access(who caller) {
	c.Helper()
	for _, m := range methods() {
		want := rights(m.short())
		allowed := want == "any"
		for class := range strings.FieldsSeq(who.class) {
			allowed = allowed || slices.Contains(strings.Fields(want), class)
		}
		err := c.call(who.conn, m)
		text := status.Convert(err).Message()
		switch {
		case strings.HasPrefix(m.short(), "Health/") && !strings.Contains(who.class, "local"):
			if status.Code(err) != codes.Unimplemented { // it is not even served on TCP
				c.Errorf("%s: %v, want Unimplemented", m.short(), err)
			}
		case (strings.HasPrefix(m.short(), "Debug/") || strings.HasPrefix(m.short(), "Logger/")) && !strings.Contains(who.class, "local"):
			if code := status.Code(err); code != codes.Unimplemented && code != codes.PermissionDenied {
				c.Errorf("%s: %v, want it refused", m.short(), err)
			}
		case allowed && text == "authorization denied for method "+m.name:
			c.Errorf("%s: refused: %v", m.short(), err)
		case allowed:
		default:
			c.refused(err, codes.PermissionDenied, "authorization denied for method "+m.name)
			reason, ofAgent := reason(err), strings.Contains(want, "agent")
			if ofAgent && reason != who.reason {
				c.Errorf("%s: reason %s, want %s", m.short(), reason, who.reason)
			}
		}
	}
}

// call makes a call with an empty request.
func (c *C) call(conn *grpc.ClientConn, m method) error {
	if !m.stream {
		return conn.Invoke(c.ctx, m.name, &emptypb.Empty{}, &emptypb.Empty{})
	}
	s, err := conn.NewStream(c.ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, m.name)
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
