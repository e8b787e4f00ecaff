package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

func TestDefaultPathsFollowTheUser(t *testing.T) {
	for _, tc := range []struct {
		name string
		root bool
		vars map[string]string
		want Paths
	}{
		{"root", true, map[string]string{"HOME": "/root", "XDG_RUNTIME_DIR": "/run/user/0", "XDG_STATE_HOME": "/root/state"}, Paths{"/var/lib/lanyard", "/run/lanyard"}},
		{"user", false, map[string]string{"HOME": "/home/a"}, Paths{"/home/a/.local/state/lanyard", "/home/a/.local/state/lanyard/run"}},
		{"user with XDG", false, map[string]string{"HOME": "/home/a", "XDG_RUNTIME_DIR": "/run/user/1", "XDG_STATE_HOME": "/s"}, Paths{"/s/lanyard", "/run/user/1/lanyard"}},
		{"relative XDG is ignored", false, map[string]string{"HOME": "/home/a", "XDG_RUNTIME_DIR": "x", "XDG_STATE_HOME": "y"}, Paths{"/home/a/.local/state/lanyard", "/home/a/.local/state/lanyard/run"}},
		{"own state has own sockets", true, map[string]string{"LANYARD_STATE_DIR": "/d"}, Paths{"/d", "/d/run"}},
		{"both own", false, map[string]string{"LANYARD_STATE_DIR": "/d", "LANYARD_RUN_DIR": "/r"}, Paths{"/d", "/r"}},
	} {
		env := &Env{Root: tc.root, Getenv: func(name string) string { return tc.vars[name] }}
		got, err := env.DefaultPaths()
		if err != nil || got != tc.want {
			t.Errorf("%s: %v, %v; want %v", tc.name, got, err, tc.want)
		}
	}
	if _, err := (&Env{Getenv: func(string) string { return "" }}).DefaultPaths(); err == nil {
		t.Error("no error without a home")
	}
}

func TestSPIREsPathsBelongToSPIREsNames(t *testing.T) {
	for d, want := range map[Dialect][2]string{
		Lanyard:     {"/run/lanyard/issuer/api.sock", "/run/lanyard/agent/public/api.sock"},
		SPIREServer: {"/tmp/spire-server/private/api.sock", "/run/lanyard/agent/public/api.sock"},
		SPIREAgent:  {"/run/lanyard/issuer/api.sock", "/tmp/spire-agent/public/api.sock"},
	} {
		env := &Env{Root: true, Dialect: d, Getenv: func(string) string { return "" }}
		if got := [2]string{env.IssuerSocket(), env.AgentSocket()}; got != want {
			t.Errorf("dialect %d: %v, want %v", d, got, want)
		}
	}
	for name, want := range map[string]Dialect{"spire-server": SPIREServer, "spire-agent": SPIREAgent, "ghostunnel": Ghostunnel, "lanyard": Lanyard, "my-spire-server": Lanyard} {
		if got := DialectOf(name); got != want {
			t.Errorf("DialectOf(%q) = %d, want %d", name, got, want)
		}
	}
}

func TestResolveKeepsSPIREsOrder(t *testing.T) {
	vars := map[string]string{"TEMPLATE": "/run/%i/s", "PATH_ENV": "unix:///env/s"}
	env := &Env{Getenv: func(name string) string { return vars[name] }}
	for _, tc := range []struct {
		flags SocketFlags
		want  string
	}{
		{SocketFlags{Path: "/flag", Instance: "a"}, "/flag"},
		{SocketFlags{Path: "unix:///flag"}, "/flag"},
		{SocketFlags{Instance: "a"}, "/run/a/s"},
		{SocketFlags{}, "/env/s"},
	} {
		if got, err := tc.flags.Resolve(env, "TEMPLATE", "PATH_ENV", "/default"); err != nil || got != tc.want {
			t.Errorf("%+v: %q, %v; want %q", tc.flags, got, err, tc.want)
		}
	}
	if got, err := (SocketFlags{}).Resolve(env, "", "", "/default"); err != nil || got != "/default" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := (SocketFlags{Instance: "a"}).Resolve(env, "PATH_ENV", "", ""); err == nil {
		t.Error("a template without %i was taken")
	}
}

func TestJSONOutputIsSPIREs(t *testing.T) {
	var o Output
	o.choice.Value = "json"
	var b bytes.Buffer
	msg := &agentv1.ListAgentsResponse{Agents: []*types.Agent{{Id: &types.SPIFFEID{TrustDomain: "a", Path: "/<b>"}, X509SvidExpiresAt: 7}, {}}}
	if err := o.Proto(&b, msg, nil); err != nil {
		t.Fatal(err)
	}
	want := `{"agents":[{"agent_version":"","attestation_type":"","banned":false,"can_reattest":false,"id":{"path":"/\u003cb\u003e","trust_domain":"a"},"selectors":[],"x509svid_expires_at":"7","x509svid_serial_number":""},` +
		`{"agent_version":"","attestation_type":"","banned":false,"can_reattest":false,"selectors":[],"x509svid_expires_at":"0","x509svid_serial_number":""}],"next_page_token":""}` + "\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}

func TestWhatOthersChoseMovesNoCursor(t *testing.T) {
	var out, errOut bytes.Buffer
	if err := new(Output).Proto(&out, nil, func(w io.Writer) { io.WriteString(w, "a\x1b[2Jb\r\n\tü\u009bc\n") }); err != nil {
		t.Fatal(err)
	}
	if want := "a\ufffd[2Jb\ufffd\n\tü\ufffdc\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
	env := &Env{Stderr: &errOut, localize: func(s string) string { return s }}
	env.finish(nil, errors.New("agent \x1b]0;x\a"))
	if want := "Error: agent \ufffd]0;x\ufffd\n"; errOut.String() != want {
		t.Errorf("%q, want %q", errOut.String(), want)
	}
}

func TestErrorsAreOneLineEachWithTheirHints(t *testing.T) {
	var b bytes.Buffer
	env := &Env{Stderr: &b, localize: func(s string) string { return s }}
	err := Hint(errors.Join(errors.New("a"), Hint(errors.New("b"), "do %s", "this")), "do that")
	if code := env.finish(nil, err); code != 1 || b.String() != "Error: a\nError: b\nhint: do that\nhint: do this\n" {
		t.Errorf("exit code %d, %q", code, b.String())
	}
	if Hint(nil, "x") != nil {
		t.Error("a hint made an error of nil")
	}
	if code := env.finish(nil, ExitCode(errors.New("c"), 7)); code != 7 || ExitCode(nil, 7) != nil {
		t.Errorf("exit code %d", code)
	}
	rpc := RPCError(status.Error(codes.NotFound, "no such entry"))
	if rpc.Error() != "no such entry (NotFound)" || status.Code(fmt.Errorf("x: %w", rpc)) != codes.NotFound {
		t.Errorf("%v, code %s", rpc, status.Code(rpc))
	}
	if plain := RPCError(io.EOF); plain != io.EOF {
		t.Errorf("%v", plain)
	}
}

func TestWriteFilesGuardsKeys(t *testing.T) {
	dir := t.TempDir()
	var out bytes.Buffer
	err := WriteFiles(&out, Artifact{What: "key to %s\n", Path: filepath.Join(dir, "k"), Data: []byte("secret"), Mode: 0o600})
	info, statErr := os.Stat(filepath.Join(dir, "k"))
	if err != nil || statErr != nil || info.Mode().Perm() != 0o600 || out.String() != "key to "+dir+"/k\n" {
		t.Errorf("%v, %v, %q", err, statErr, out.String())
	}
	if err := WriteFiles(&out, Artifact{Path: filepath.Join(dir, "k", "x")}); err == nil || err.Error() != dir+"/k is not a directory" {
		t.Errorf("got %v", err)
	}
}

func TestDialAdminSaysAtOnceThatNobodyIsThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if _, err := DialAdmin(t.Context(), path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cc, err := DialAdmin(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := cc.Close(); err != nil {
		t.Error(err)
	}
}
