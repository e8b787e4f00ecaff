package issuercli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/localauthorityv1"
)

// authorityKind is what X.509 and JWT authorities differ in.
type authorityKind struct {
	env   *cli.Env
	name  string // as people write it
	get   func(context.Context, localauthorityv1.LocalAuthorityClient) (authorityStates, error)
	calls map[string]authorityCall // by the verb
}

// authorityStates is the answer of Get…AuthorityState.
type authorityStates interface {
	proto.Message
	GetActive() *localauthorityv1.AuthorityState
	GetPrepared() *localauthorityv1.AuthorityState
	GetOld() *localauthorityv1.AuthorityState
}

// authorityCall prepares, or does something with the authority that id names.
type authorityCall func(ctx context.Context, c localauthorityv1.LocalAuthorityClient, id string) (proto.Message, *localauthorityv1.AuthorityState, error)

func localAuthority(env *cli.Env) *cobra.Command {
	return group("localauthority", "See and rotate the issuer's own authorities",
		authorityKind{env, "X.509", x509States, x509Calls()}.verbs("x509"),
		authorityKind{env, "JWT", jwtStates, jwtCalls()}.verbs("jwt"))
}

func (k authorityKind) verbs(name string) *cobra.Command {
	g := group(name, "The "+k.name+" authorities",
		k.show(),
		k.change("prepare", "Prepared", "Make a new authority and put it into the bundle, so that it can be activated", false),
		k.change("activate", "Activated", "Sign with the prepared authority from now on", true),
		k.change("taint", "Tainted", "Distrust an old authority: what it signed is replaced", true),
		k.change("revoke", "Revoked", "Take a tainted authority out of the bundle", true))
	g.Long = "The " + k.name + ` authorities of this issuer. Each has its turn by itself; to force one out at once:

  lanyard issuer localauthority ` + name + ` prepare                    a new one is made, and goes out with the bundle
  lanyard issuer localauthority ` + name + ` activate -authorityID NEW  it signs from now on
  lanyard issuer localauthority ` + name + ` taint -authorityID OLD     what the old one signed is replaced
  lanyard issuer localauthority ` + name + ` revoke -authorityID OLD    the old one leaves the bundle`
	return g
}

func (k authorityKind) show() *cobra.Command {
	v := newVerb(k.env, "show", "Show the active, the prepared and the old "+k.name+" authority").withOutput()
	v.RunE = func(*cobra.Command, []string) error {
		return v.call(func(ctx context.Context, cc *grpc.ClientConn) error {
			states, err := k.get(ctx, localauthorityv1.NewLocalAuthorityClient(cc))
			if err != nil {
				return fmt.Errorf("could not get %s authorities: %w", k.name, err)
			}
			return v.out.Proto(k.env.Stdout, states, func(w io.Writer) {
				k.print(w, "Active", "active", states.GetActive())
				fmt.Fprintln(w)
				k.print(w, "Prepared", "prepared", states.GetPrepared())
				fmt.Fprintln(w)
				k.print(w, "Old", "old", states.GetOld())
			})
		})
	}
	return v.Command
}

func (k authorityKind) change(verb, done, short string, byID bool) *cobra.Command {
	v := newVerb(k.env, verb, short).withOutput()
	var id string
	if byID {
		v.Flags().StringVar(&id, "authorityID", "", "`ID` of the authority")
	}
	v.RunE = func(*cobra.Command, []string) error {
		if byID && id == "" {
			return cli.Usagef("-authorityID is missing: the authority to %s (the verb show lists them)", verb)
		}
		return v.call(func(ctx context.Context, cc *grpc.ClientConn) error {
			resp, state, err := k.calls[verb](ctx, localauthorityv1.NewLocalAuthorityClient(cc), id)
			if err != nil {
				return fmt.Errorf("could not %s %s authority: %w", verb, k.name, err)
			}
			return v.out.Proto(k.env.Stdout, resp, func(w io.Writer) { k.print(w, done, "", state) })
		})
	}
	return v.Command
}

// print writes SPIRE's block for an authority; status is what it is called where there is none.
func (k authorityKind) print(w io.Writer, label, status string, a *localauthorityv1.AuthorityState) {
	fmt.Fprintf(w, "%s %s authority:\n", label, k.name)
	if a == nil {
		fmt.Fprintf(w, "  No %s %s authority found\n", status, k.name)
		return
	}
	fmt.Fprintf(w, "  Authority ID: %s\n", a.AuthorityId)
	fmt.Fprintf(w, "  Expires at: %s\n", time.Unix(a.ExpiresAt, 0).UTC())
	switch {
	case k.name != "X.509":
	case a.UpstreamAuthoritySubjectKeyId != "":
		fmt.Fprintf(w, "  Upstream authority Subject Key ID: %s\n", a.UpstreamAuthoritySubjectKeyId)
	default:
		fmt.Fprintln(w, "  Upstream authority ID: No upstream authority")
	}
}
