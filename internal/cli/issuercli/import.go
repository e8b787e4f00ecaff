package issuercli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/cli/takeover"
)

const importLong = `Take over from a running spire-server of the same trust domain, on this machine: its entries, federated bundles and federation
relationships, and its agents with what it knows of each, bans too. The authorities of each issuer go into the bundle of the
other, so that agents can be moved one by one, and go on with the SVIDs they have: no new tokens. The spire-server goes on as it
is; nothing of it is changed but its bundle.

It may be repeated, and takes then what is new: repeat it right before agents are moved, for one that got a new SVID
meanwhile is known here by its old one.`

const importNext = `
Next:
  1. Within seconds agents of the old server trust this issuer, too; give them a minute.
  2. Repeat this command, and point the agents at this issuer: server_address and server_port in agent.conf, or the name in
     the DNS; then restart them. They go on with the SVIDs they have.
  3. Once all have moved, stop the old server. Its authorities leave the bundle by themselves when they expire.
`

func importVerb(env *cli.Env) *cobra.Command {
	v := newVerb(env, "import", "Take over from a running spire-server, so that its agents move without a new token").withOutput()
	v.Long = importLong
	v.Example = `  lanyard issuer import -spire-socket /tmp/spire-server/private/api.sock -dry-run
  lanyard issuer import -spire-socket /tmp/spire-server/private/api.sock`
	var from string
	var dryRun, update bool
	v.Flags().StringVar(&from, "spire-socket", "", "`PATH` of the admin socket of the spire-server")
	v.Flags().BoolVar(&dryRun, "dry-run", false, "tell what would be taken and change nothing, here and there")
	v.Flags().BoolVar(&update, "update", false, "make entries that are here already, and differ, as they are there")
	v.RunE = func(*cobra.Command, []string) error {
		if from == "" {
			return cli.Usagef("-spire-socket is missing: the admin socket of the spire-server, %s as a rule", "/tmp/spire-server/private/api.sock")
		}
		return v.call(func(ctx context.Context, to *grpc.ClientConn) error {
			if v.sameSocket(from) {
				return cli.Usagef("-spire-socket %s is the socket of this issuer: name that of the spire-server", from)
			}
			old, err := cli.DialAdmin(ctx, cli.TrimUnix(from))
			if err != nil {
				return cli.Hint(fmt.Errorf("the spire-server: %w", err), "it must run, on this machine; its socket_path is in server.conf")
			}
			defer old.Close()
			report, err := takeover.Run(ctx, takeover.Config{
				From: old, To: to, DryRun: dryRun, Update: update, Now: time.Now().Unix(),
				Progress: func(what string, total int) *cli.Progress { return env.Progress(what, total, v.out.JSON()) },
			})
			return v.tellImport(report, err)
		})
	}
	return cli.ExitLikeLanyard(v.Command)
}

// tellImport prints the report; err says that it ended too early.
func (v *verb) tellImport(report *takeover.Report, err error) error {
	w := v.env.Stdout
	if v.out.JSON() {
		err = errors.Join(err, json.NewEncoder(w).Encode(report))
	} else if report.TrustDomain != "" {
		err = errors.Join(err, v.out.Struct(w, report, report.Print))
	}
	failed := report.Failed()
	switch {
	case err != nil:
		return cli.Hint(err, "mend that and repeat the command: what is taken stays taken")
	case failed > 0:
		return cli.Hint(fmt.Errorf("this issuer refused %s, see above", cli.Count(failed, "thing", "things")), "mend or delete these in the old server, and repeat the command: what is taken stays taken")
	case !v.out.JSON() && report.DryRun:
		fmt.Fprint(w, "\nDry run: nothing was changed\n")
	case !v.out.JSON():
		fmt.Fprint(w, importNext)
	}
	return nil
}

// sameSocket says whether path is the socket this verb calls.
func (v *verb) sameSocket(path string) bool {
	own, err := v.socketPath()
	if err != nil {
		return false
	}
	a, errA := os.Stat(own)
	b, errB := os.Stat(cli.TrimUnix(path))
	return errA == nil && errB == nil && os.SameFile(a, b)
}
