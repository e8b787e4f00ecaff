package agentcli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/cli"
)

// spireAdminSocket is spire-agent's default, used only under its name.
const spireAdminSocket = "/tmp/spire-agent/private/admin.sock"

// adminVerb is one that calls the agent's admin socket.
type adminVerb struct {
	*cobra.Command
	env    *cli.Env
	out    cli.Output
	socket string
}

func newAdminVerb(env *cli.Env, name, short string) *adminVerb {
	v := &adminVerb{Command: &cobra.Command{Use: name + " [flags]", Short: short, DisableFlagsInUseLine: true}, env: env}
	fs := v.Flags()
	fs.SortFlags = false
	fs.StringVar(&v.socket, "socketPath", "", "`PATH` of the agent's admin socket, its admin_socket_path (default "+adminSocket(env)+")")
	v.out.AddFlag(fs)
	cli.Common(fs, "socketPath", "output")
	return v
}

// adminSocket is that of this user's agent or, where there is none, of root's, as [cli.Env.WorkloadSocket].
func adminSocket(env *cli.Env) string {
	if env.Dialect == cli.SPIREAgent {
		return spireAdminSocket
	}
	p, err := env.DefaultPaths()
	if err != nil {
		return ""
	}
	own := p.AgentAdminSocket()
	if env.Getenv("LANYARD_STATE_DIR") != "" || env.Getenv("LANYARD_RUN_DIR") != "" {
		return own
	}
	system := cli.Paths{Run: "/run/lanyard"}.AgentAdminSocket()
	if _, err := os.Lstat(own); err != nil {
		// Its directory may be closed to this user: that it is there says enough.
		if _, err := os.Lstat(system); err == nil || errors.Is(err, fs.ErrPermission) {
			return system
		}
	}
	return own
}

// call connects to the agent and does what f does there.
func (v *adminVerb) call(f func(ctx context.Context, cc *grpc.ClientConn) error) error {
	path := cli.TrimUnix(v.socket)
	if path == "" {
		path = adminSocket(v.env)
	}
	if path == "" {
		_, err := v.env.DefaultPaths()
		return err
	}
	cc, err := cli.DialAdmin(v.Context(), path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return cli.Hint(err, "is the node agent running, and does it have an admin socket? Set admin_socket_path in its configuration, or name its socket with -socketPath")
	case errors.Is(err, fs.ErrPermission):
		return cli.Hint(err, "the admin socket is for root and the user that runs the agent: use sudo, or become that user")
	case err != nil:
		return err
	}
	defer cc.Close()
	err = f(v.Context(), cc)
	switch text := status.Convert(err).Message(); {
	case status.Code(err) == codes.PermissionDenied:
		return cli.Hint(cli.RPCError(err), "use sudo, or become the user that runs the agent")
	case status.Code(err) == codes.Unimplemented && strings.HasPrefix(text, "unknown "):
		return cli.Hint(cli.RPCError(err), "%s is not the admin socket of a Lanyard agent: what answers there has no such call", path)
	}
	return err
}
