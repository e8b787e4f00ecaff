// Package agentcli owns the verbs that talk to a node agent's sockets: as a workload, fetching and watching identities, and as
// the node's operator, asking what the agent holds and why a process has no identity. All but "explain" work on a spire-agent,
// too. It does not run an agent.
package agentcli

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/lanyard-mtls/lanyard/internal/cli"
)

// Verbs gives the commands, to be put below "lanyard agent" or at the top where the program is called spire-agent.
func Verbs(env *cli.Env) []*cobra.Command {
	fetch := fetchX509(env, "fetch")
	fetch.Short = "Fetch this process's X.509-SVIDs; with fetch jwt, its JWT-SVIDs"
	fetch.Long = "Fetch this process's X.509-SVIDs from the Workload API; the same as fetch x509."
	fetch.AddCommand(fetchX509(env, "x509"), fetchJWT(env))
	validate := &cobra.Command{Use: "validate", Short: "Validate what another workload has shown"}
	validate.AddCommand(validateJWT(env))
	api := &cobra.Command{Use: "api", Short: "Be a workload: fetch, watch and validate identities"}
	api.AddCommand(fetch, watch(env), validate)
	return []*cobra.Command{
		api,
		group("logger", "See and change the agent's log level", loggerGet(env), loggerSet(env), loggerReset(env)),
		group("debug", "Look into a running agent", debugGetInfo(env)),
		healthcheck(env),
		cli.ExitLikeLanyard(explainVerb(env)),
	}
}

func group(name, short string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: name, Short: short}
	c.AddCommand(verbs...)
	return c
}

// verb is one that calls the agent's public socket.
type verb struct {
	*cobra.Command
	env    *cli.Env
	socket cli.SocketFlags
}

func newVerb(env *cli.Env, name, short string) *verb {
	v := &verb{Command: &cobra.Command{Use: name + " [flags]", Short: short, DisableFlagsInUseLine: true}, env: env}
	fs := v.Flags()
	fs.SortFlags = false
	fs.StringVar(&v.socket.Path, "socketPath", "", "`PATH` of the agent's socket (default $SPIRE_AGENT_PUBLIC_SOCKET or $SPIFFE_ENDPOINT_SOCKET, else "+env.WorkloadSocket()+")")
	fs.StringVar(&v.socket.Instance, "instance", "", "`NAME` to fill in for %i in $SPIRE_AGENT_PUBLIC_SOCKET_TEMPLATE")
	return v
}

// path is the socket to dial. spire-agent's own variable goes before the standard's.
func (v *verb) path() (string, error) {
	from := "SPIFFE_ENDPOINT_SOCKET"
	if v.env.Getenv(spireSocket) != "" {
		from = spireSocket
	}
	return v.socket.Resolve(v.env, spireSocket+"_TEMPLATE", from, v.env.WorkloadSocket())
}

// spireSocket is the variable that spire-agent's verbs take the socket from.
const spireSocket = "SPIRE_AGENT_PUBLIC_SOCKET"

// connect dials the agent.
func (v *verb) connect() (*grpc.ClientConn, error) {
	path, err := v.path()
	if err != nil {
		return nil, err
	}
	cc, err := cli.DialWorkloadAPI(v.Context(), path)
	if err != nil {
		err = fmt.Errorf("connect to the Workload API at %s: %w", path, rootCause(err))
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		err = cli.Hint(err, "is the node agent running? Start it, or name its socket with -socketPath")
	}
	if errors.Is(err, fs.ErrPermission) {
		err = cli.Hint(err, "this socket is not for your user: its mode and owner, and those of its directory, say who may connect")
	}
	return cc, err
}

// rootCause drops the wrappings that name the path once more.
func rootCause(err error) error {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return err
}

func healthcheck(env *cli.Env) *cobra.Command {
	v := newVerb(env, "healthcheck", "Ask the agent whether it is healthy: exit 0 if so, 1 if not")
	var h cli.Health
	h.AddFlags(v.Flags())
	v.RunE = func(*cobra.Command, []string) error {
		h.Start(env, "agent")
		cc, err := v.connect()
		if err == nil {
			defer cc.Close()
			err = h.Check(v.Context(), env, cc, "agent")
		}
		switch {
		case err == nil:
			fmt.Fprintln(env.Stdout, "Agent is healthy.")
			return nil
		case env.Dialect != cli.SPIREAgent:
			return fmt.Errorf("agent is unhealthy: %w", err)
		}
		// Probes look for spire-agent's words, whatever is wrong.
		text := "unable to determine health"
		if strings.HasPrefix(err.Error(), "agent returned") {
			text = err.Error()
		}
		fmt.Fprintf(env.Stderr, "Agent is unhealthy: %s\n", text)
		return errors.Join(cli.Printed(), err)
	}
	return v.Command
}
