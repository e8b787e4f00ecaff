// Package issuercli owns the verbs that talk to an issuer's admin socket: tokens, entries, agents, bundle, minting, health.
// They speak the SPIRE server API with SPIRE's flags and output, to Lanyard's issuer and to a spire-server alike. It does
// not run an issuer.
package issuercli

import (
	"context"
	"errors"
	"io/fs"
	"syscall"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/lanyard-mtls/lanyard/internal/cli"
)

// Verbs gives the commands, to be put below "lanyard issuer" or at the top where the program is called spire-server.
func Verbs(env *cli.Env) []*cobra.Command {
	return []*cobra.Command{
		group("entry", "Say which workloads get which identity", entryApply(env), entryCreate(env), entryShow(env), entryUpdate(env), entryDelete(env), entryCount(env)),
		group("token", "Make join tokens", tokenGenerate(env), tokenCreate(env), tokenList(env), tokenRevoke(env)),
		group("agent", "List, ban and evict node agents", agentList(env), agentShow(env), agentCount(env), agentBan(env), agentEvict(env), agentPurge(env)),
		group("bundle", "The own trust bundle, and those of federated trust domains", bundleShow(env), bundleList(env), bundleSet(env), bundleDelete(env), bundleCount(env)),
		group("federation", "Say with which trust domains to federate, and where their bundles come from", federationCreate(env), federationUpdate(env), federationDelete(env), federationList(env), federationShow(env), federationRefresh(env)),
		group("x509", "Mint X.509-SVIDs", x509Mint(env)),
		group("jwt", "Mint JWT-SVIDs", jwtMint(env)),
		group("wit", "Mint WIT-SVIDs", witMint(env)),
		localAuthority(env),
		group("upstreamauthority", "Taint and revoke the authority above the issuer's own", upstreamTaint(env), upstreamRevoke(env)),
		group("logger", "See and change the issuer's log level", loggerGet(env), loggerSet(env), loggerReset(env)),
		group("debug", "Look into a running issuer", debugGetInfo(env)),
		healthcheck(env),
		importVerb(env),
		cli.ExitLikeLanyard(group("ca", "See what the issuer plans for its authorities", caPlan(env))),
		backupVerb(env),
	}
}

func group(name, short string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: name, Short: short}
	c.AddCommand(verbs...)
	return c
}

// verb is one that calls the issuer.
type verb struct {
	*cobra.Command
	env    *cli.Env
	out    cli.Output
	socket cli.SocketFlags
}

func newVerb(env *cli.Env, name, short string) *verb {
	v := &verb{Command: &cobra.Command{Use: name + " [flags]", Short: short, DisableFlagsInUseLine: true}, env: env}
	fs := v.Flags()
	fs.SortFlags = false
	fs.StringVar(&v.socket.Path, "socketPath", "", "`PATH` of the issuer's admin socket (default $SPIRE_SERVER_PRIVATE_SOCKET, else "+env.IssuerSocket()+")")
	fs.StringVar(&v.socket.Instance, "instance", "", "`NAME` to fill in for %i in $SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE")
	cli.Common(fs, "socketPath", "instance")
	return v
}

// withOutput adds -output.
func (v *verb) withOutput() *verb {
	v.out.AddFlag(v.Flags())
	cli.Common(v.Flags(), "output")
	return v
}

// partly ends a verb that has told about each item in its answer: err says that some failed. With -output json spire-server
// exits with 0 then, and so does Lanyard under that name.
func (v *verb) partly(err error) error {
	if v.env.Dialect == cli.SPIREServer && v.out.JSON() {
		return nil
	}
	return err
}

// socketPath is the admin socket of the issuer.
func (v *verb) socketPath() (string, error) {
	return v.socket.Resolve(v.env, "SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE", "SPIRE_SERVER_PRIVATE_SOCKET", v.env.IssuerSocket())
}

// call connects to the issuer and does what f does there.
func (v *verb) call(f func(ctx context.Context, cc *grpc.ClientConn) error) error {
	path, err := v.socketPath()
	if err != nil {
		return err
	}
	ctx := v.Context()
	cc, err := cli.DialAdmin(ctx, path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return cli.Hint(err, "is the issuer running? Start it, or name its socket with -socketPath")
	case errors.Is(err, fs.ErrPermission):
		return cli.Hint(err, "the admin socket is for root and the user that runs the issuer: use sudo, or become that user")
	case err != nil:
		return err
	}
	defer cc.Close()
	return f(ctx, cc)
}
