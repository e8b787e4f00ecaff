package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/lanyard-mtls/lanyard/cmd/internal/agentcmd"
	"github.com/lanyard-mtls/lanyard/cmd/internal/issuercmd"
	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/run"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/issuer"
	"github.com/lanyard-mtls/lanyard/nodeagent"
	"github.com/lanyard-mtls/lanyard/sds"
)

// up is an issuer and an agent for one machine.
type up struct {
	env   *cli.Env
	paths cli.Paths
	td    spiffeid.TrustDomain
	port  int
	log   *slog.Logger
	level slog.LevelVar // log's, for both roles: "logger set" of either
	addr  net.Addr      // the issuer's, once it is ready
}

func upVerb(env *cli.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "up [flags]",
		Short: "Run issuer and agent for this machine, with nothing to configure",
		Long: `Run an issuer and an agent for this machine in one process, with nothing to configure, and print what to try next.

Their state is kept in $LANYARD_STATE_DIR (default /var/lib/lanyard for root, else $XDG_STATE_HOME/lanyard or
~/.local/state/lanyard), their sockets in $LANYARD_RUN_DIR (default /run/lanyard for root, else $XDG_RUNTIME_DIR/lanyard), so
that a second start goes on where the first ended. To begin anew, remove the state. The log goes to standard error. Ctrl-C
stops both, a second one at once.

This is for one machine, to try and to develop: run "lanyard issuer run" and "lanyard agent run" where there are more.`,
		Example:               "  lanyard up",
		DisableFlagsInUseLine: true,
	}
	u := &up{env: env}
	td, logs := cli.DefaultTrustDomain, cli.LogFlags{}
	cmd.Flags().SortFlags = false
	cmd.Flags().StringVar(&td, "trustDomain", td, "`NAME` of the trust domain")
	cmd.Flags().IntVar(&u.port, "serverPort", cli.DefaultPort, "TCP `PORT` of the issuer on 127.0.0.1; 0 for any that is free")
	logs.Add(cmd.Flags())
	cmd.Flags().Lookup("logFile").Usage = "`FILE` to append the log to (default standard error)"
	cmd.RunE = func(*cobra.Command, []string) (err error) {
		if u.td, err = spiffeid.TrustDomainFromString(td); err != nil {
			return cli.Usagef("-trustDomain %q: %v", td, err)
		}
		if u.port < 0 || u.port > 65535 {
			return cli.Usagef("-serverPort %d: want 0 to 65535", u.port)
		}
		if err := logs.Check(); err != nil {
			return err
		}
		if u.paths, err = env.DefaultPaths(); err != nil {
			return err
		}
		logs.Config.Var = &u.level
		return cli.WithLog(logs.Config, env.Stderr, func(log *slog.Logger) error {
			u.log = log
			ctx, stop := run.Signals(cmd.Context(), env.Stderr, env.Exit)
			defer stop()
			err := run.InOrder(ctx, run.Role{Name: "issuer", Run: u.issuer}, run.Role{Name: "agent", Run: u.agent}, run.Role{Name: "up", Run: u.tell})
			return cli.Advise(err, "LANYARD_STATE_DIR and LANYARD_RUN_DIR")
		})
	}
	return cmd
}

// issuer serves until ctx ends; the agent needs it to join.
func (u *up) issuer(ctx context.Context, ready func()) error {
	return issuercmd.Serve(ctx, issuer.Config{
		TrustDomain: u.td, DataDir: u.paths.IssuerState(), BindAddress: cli.DefaultBindAddress, BindPort: u.port, SocketPath: u.paths.IssuerSocket(),
		Level: &u.level,
	}, u.log.With("role", "issuer"), func(at issuer.Addrs) {
		u.addr = at.TCP
		ready()
	})
}

// node is the SPIFFE ID that entries name as their parent: the agent's own changes each time it joins.
func (u *up) node() (spiffeid.ID, error) { return spiffeid.FromPath(u.td, "/node") }

// agent joins, if it hasn't, and serves until ctx ends.
func (u *up) agent(ctx context.Context, ready func()) error {
	bundle, token, err := u.admit(ctx)
	if err != nil {
		return err
	}
	return agentcmd.Serve(ctx, nodeagent.Config{
		TrustDomain: u.td, DataDir: u.paths.AgentState(), ServerAddress: u.addr.String(), SocketPath: u.paths.AgentSocket(),
		AdminSocketPath: u.paths.AgentAdminSocket(), TrustBundle: bundle, JoinToken: token, DiscoverWorkloadPath: true,
		SyncInterval: syncInterval, Level: &u.level, LaunchLevel: u.level.Level(),
		Ready: func(nodeagent.Addrs) { ready() },
	}, sds.Options{}, u.log.With("role", "agent"))
}

// syncInterval is short: who tries things out waits for them.
const syncInterval = time.Second

// tokenLife is how long the token for the own agent may be used, in seconds. One that isn't needed, as the agent has joined
// before, is gone after it.
const tokenLife = 60

// admit asks the issuer, over its admin socket as any operator would, for what an agent needs to join.
func (u *up) admit(ctx context.Context) (bundle []byte, token string, err error) {
	cc, err := cli.DialAdmin(ctx, u.paths.IssuerSocket())
	if err != nil {
		return nil, "", err
	}
	defer cc.Close()
	got, err := bundlev1.NewBundleClient(cc).GetBundle(ctx, &bundlev1.GetBundleRequest{})
	if err != nil {
		return nil, "", fmt.Errorf("the issuer's bundle: %w", err)
	}
	for _, a := range got.X509Authorities {
		if _, err := x509.ParseCertificate(a.Asn1); err != nil {
			return nil, "", fmt.Errorf("the issuer's bundle: %w", err)
		}
		bundle = append(bundle, cli.PEM("CERTIFICATE", a.Asn1)...)
	}
	node, err := u.node()
	if err != nil {
		return nil, "", err
	}
	made, err := agentv1.NewAgentClient(cc).CreateJoinToken(ctx, &agentv1.CreateJoinTokenRequest{AgentId: registration.IDProto(node), Ttl: tokenLife})
	if err != nil {
		return nil, "", fmt.Errorf("a join token for the agent: %w", err)
	}
	return bundle, made.Value, nil
}

// tell waits until the agent is in sync, prints what to try, and keeps quiet until ctx ends.
func (u *up) tell(ctx context.Context, ready func()) error {
	cc, err := cli.DialAdmin(ctx, u.paths.AgentAdminSocket())
	if err != nil {
		return err
	}
	defer cc.Close()
	health, err := grpc_health_v1.NewHealthClient(cc).Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		return err
	}
	for {
		state, err := health.Recv()
		if err != nil {
			return errors.Join(err, ctx.Err())
		}
		if state.Status == grpc_health_v1.HealthCheckResponse_SERVING {
			break
		}
	}
	ready()
	u.print()
	<-ctx.Done()
	return nil
}
