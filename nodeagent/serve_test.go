package nodeagent_test

import (
	"context"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	workloadpb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/nodeagent/internal/spiretest"
)

func TestServesGoSPIFFE(t *testing.T) {
	s := spiretest.New(t, "example.org")
	other := testca.New(t, "other.org")
	s.Federate(other.Bundle())
	e := own(s, "tok", "web")
	e.Hint, e.FederatesWith = "external", []spiffeid.TrustDomain{other.TrustDomain}
	s.Put(e)
	cfg := config(t, s, s.Token("tok", time.Hour))
	a := start(t, cfg)
	got, err := a.fetch(t)
	if err != nil {
		t.Fatal(err)
	}
	svid := got.DefaultSVID()
	if svid.ID != e.SPIFFEID || svid.Hint != "external" || len(got.SVIDs) != 1 {
		t.Errorf("got %d SVIDs, %s, hint %q", len(got.SVIDs), svid.ID, svid.Hint)
	}
	if _, _, err := x509svid.Verify(svid.Certificates, got.Bundles); err != nil {
		t.Error(err)
	}
	for _, want := range []*x509bundle.Bundle{s.CA.Bundle(), other.Bundle()} {
		if b, ok := got.Bundles.Get(want.TrustDomain()); !ok || !b.Equal(want) {
			t.Errorf("bundle of %s: %v", want.TrustDomain(), b)
		}
	}
	bundles, err := workloadapi.FetchX509Bundles(t.Context(), a.addr())
	if err != nil || bundles.Len() != 2 {
		t.Errorf("%v bundles, %v", bundles, err)
	}
	for path, want := range map[string]fs.FileMode{cfg.SocketPath: 0o777, cfg.AdminSocketPath: 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	if _, err := healthpb.NewHealthClient(a.dial(t, cfg.AdminSocketPath)).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
		t.Errorf("admin socket: %v", err)
	}
	if err := a.stop(); err != nil {
		t.Errorf("stopped with %v", err)
	}
	for _, path := range []string{cfg.SocketPath, cfg.AdminSocketPath} {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s was left behind", path)
		}
	}
}

func TestRefusesAndExplains(t *testing.T) {
	s := spiretest.New(t, "example.org")
	e := own(s, "tok", "a")
	e.Selectors = append(e.Selectors, registration.Selector{Type: "unix", Value: "path:/nowhere"})
	s.Put(e)
	a := start(t, config(t, s, s.Token("tok", time.Hour)))
	_, err := a.fetch(t)
	if st := status.Convert(err); st.Code() != codes.PermissionDenied || !strings.Contains(st.Message(), "no identity issued") {
		t.Errorf("got %v", err)
	}
	if _, err := workloadapi.FetchX509Bundles(t.Context(), a.addr()); status.Code(err) != codes.PermissionDenied {
		t.Errorf("bundles: %v", err)
	}
	log := a.log.String()
	for _, want := range []string{"nearest_spiffe_id=spiffe://example.org/a", "missing=unix:path:/nowhere", "unix:uid:" + strconv.Itoa(os.Geteuid()), "pid=" + strconv.Itoa(os.Getpid())} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not have %s", want)
		}
	}
	if n := strings.Count(log, `msg="no identity issued"`); n != 1 {
		t.Errorf("explained %d times at once", n)
	}
}

func TestSecurityHeaderAndUnimplemented(t *testing.T) {
	s := spiretest.New(t, "example.org")
	s.Put(own(s, "tok", "a"))
	a := start(t, config(t, s, s.Token("tok", time.Hour)))
	a.awaitHealthy(t)
	client := workloadpb.NewSpiffeWorkloadAPIClient(a.dial(t, a.cfg.SocketPath))
	with := func(values ...string) context.Context {
		ctx := t.Context()
		for _, v := range values {
			ctx = metadata.AppendToOutgoingContext(ctx, "workload.spiffe.io", v)
		}
		return ctx
	}
	for name, ctx := range map[string]context.Context{"none": with(), "false": with("false"), "two": with("true", "true")} {
		stream, err := client.FetchX509SVID(ctx, &workloadpb.X509SVIDRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		if st := status.Convert(err); st.Code() != codes.InvalidArgument || st.Message() != "security header missing from request" {
			t.Errorf("header %s: %v", name, err)
		}
		if _, err := client.FetchJWTSVID(ctx, &workloadpb.JWTSVIDRequest{}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("header %s, unary: %v", name, err)
		}
	}
	stream, err := client.FetchWITSVID(with("true"), &workloadpb.WITSVIDRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("WIT-SVIDs: %v", err)
	}
}

func TestKeyTypes(t *testing.T) {
	for keyType, want := range map[string]x509.PublicKeyAlgorithm{"ec-p384": x509.ECDSA, "rsa-2048": x509.RSA} {
		s := spiretest.New(t, "example.org")
		s.Put(own(s, "tok", "a"))
		cfg := config(t, s, s.Token("tok", time.Hour))
		cfg.WorkloadKeyType = keyType
		got, err := start(t, cfg).fetch(t)
		if err != nil {
			t.Fatal(err)
		}
		if alg := got.DefaultSVID().Certificates[0].PublicKeyAlgorithm; alg != want {
			t.Errorf("%s: %s", keyType, alg)
		}
	}
}

// Anyone on the node may connect: what they can make the agent hold is bounded.
func TestHostileCallersAreBounded(t *testing.T) {
	s := spiretest.New(t, "example.org")
	s.Put(own(s, "tok", "a"))
	a := start(t, config(t, s, s.Token("tok", time.Hour)))
	a.awaitHealthy(t)
	conn := a.dial(t, a.cfg.SocketPath)
	_, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: strings.Repeat("x", 2<<20)})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("2 MiB of request: %v", err)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x", strings.Repeat("x", 64<<10))
	if _, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}); err == nil {
		t.Error("64 KiB of metadata are accepted")
	}
	if n := announcedStreams(t, a.cfg.SocketPath); n != 1000 {
		t.Errorf("%d streams a connection are announced", n)
	}
}

// announcedStreams returns SETTINGS_MAX_CONCURRENT_STREAMS of the server's
// connection preface (RFC 9113, section 6.5.2), 0 for none.
func announcedStreams(t *testing.T, path string) uint32 {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"); err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 9)
	if _, err := io.ReadFull(conn, head); err != nil {
		t.Fatal(err)
	}
	settings := make([]byte, int(head[1])<<8|int(head[2]))
	if _, err := io.ReadFull(conn, settings); err != nil {
		t.Fatal(err)
	}
	for setting := range slices.Chunk(settings, 6) {
		if binary.BigEndian.Uint16(setting) == 3 {
			return binary.BigEndian.Uint32(setting[2:])
		}
	}
	return 0
}
