package issuercli

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/operationsv1"
)

func caPlan(env *cli.Env) *cobra.Command {
	v := newVerb(env, "plan", "Show what will happen to the authorities, and when").withOutput()
	v.Long = `Show the issuer's authorities, what will happen to them and when, and which agents a new one waits for: it signs once all agents
whose SVIDs have not expired hold the bundle with it, and at a fixed time at the latest.`
	v.RunE = func(*cobra.Command, []string) error {
		return v.ownCall(func(ctx context.Context, c operationsv1.OperationsClient) error {
			plan, err := c.GetCAPlan(ctx, &operationsv1.GetCAPlanRequest{})
			if err != nil {
				return err
			}
			return v.out.Proto(env.Stdout, plan, func(w io.Writer) { printPlan(w, plan, time.Now()) })
		})
	}
	return cli.ExitLikeLanyard(v.Command)
}

func printPlan(w io.Writer, plan *operationsv1.GetCAPlanResponse, now time.Time) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "KIND\tSTATUS\tAUTHORITY\tISSUED\tEXPIRES\tIN")
	for _, a := range plan.Authorities {
		state := a.Status
		if a.Tainted {
			state += ", tainted"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", a.Kind, state, a.AuthorityId, stamp(a.IssuedAt), stamp(a.ExpiresAt), until(a.ExpiresAt, now))
	}
	if len(plan.Authorities) == 0 {
		fmt.Fprintln(t, "none yet")
	}
	t.Flush()
	fmt.Fprintln(w)
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "WHEN\tIN\tKIND\tWHAT\tAUTHORITY\t")
	for _, e := range plan.Events {
		id := e.AuthorityId
		if id == "" {
			id = "a new one"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", stamp(e.At), until(e.At, now), e.Kind, e.Action, id, e.Note)
	}
	if len(plan.Events) == 0 {
		fmt.Fprintln(t, "nothing is planned")
	}
	t.Flush()
	for i, id := range plan.WaitingFor {
		if i == 0 {
			fmt.Fprintf(w, "\nWaiting for %s that do not hold the bundle with the prepared authority yet:\n", cli.Count(len(plan.WaitingFor), "agent", "agents"))
		}
		fmt.Fprintf(w, "  %s\n", id)
	}
}

// until says how far off Unix seconds are.
func until(unix int64, now time.Time) string {
	d := time.Unix(unix, 0).Sub(now).Round(time.Second)
	switch {
	case unix <= 0:
		return "-"
	case d <= 0:
		return "now"
	case d > time.Hour:
		d = d.Round(time.Minute)
	}
	return d.String()
}
