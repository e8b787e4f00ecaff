package issuercli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/operationsv1"
)

// ownCall is call for what only Lanyard's issuer can do.
func (v *verb) ownCall(f func(ctx context.Context, c operationsv1.OperationsClient) error) error {
	return v.call(func(ctx context.Context, cc *grpc.ClientConn) error {
		err := f(ctx, operationsv1.NewOperationsClient(cc))
		if status.Code(err) == codes.Unimplemented {
			return cli.Hint(err, "only a Lanyard issuer can do this: is -socketPath that of one, and of this version?")
		}
		return err
	})
}

// lifetime is a flag for a duration that takes whole seconds too, as SPIRE's flags do.
type lifetime time.Duration

func (l *lifetime) String() string { return time.Duration(*l).String() }
func (l *lifetime) Type() string   { return "duration" }

// Set implements pflag.Value.
func (l *lifetime) Set(s string) error {
	d, err := time.ParseDuration(s)
	if n, intErr := strconv.ParseInt(s, 10, 32); intErr == nil {
		d, err = time.Duration(n)*time.Second, nil
	}
	*l = lifetime(d)
	return err
}

// tokenFlags are the flags of token create.
type tokenFlags struct {
	method                       cli.Choice
	ttl                          lifetime
	uses                         int
	cidrs, selectors             cli.Strings
	group, agentID, read, output string
}

func tokenCreate(env *cli.Env) *cobra.Command {
	v := newVerb(env, "create", "Make a token for joining, with bounds: for many nodes, from some networks, with selectors").withOutput()
	v.Long = `Make a token for joining.

With join_key the token binds the node's own key at the first use: a lost answer can be asked for again, the node joins again
after any pause by proving that key, and once spent the token is worth nothing to a thief. With join_token it is SPIRE's: for
one node, once.`
	v.Example = `  lanyard issuer token create -method join_key -ttl 1h -write node7.token
  lanyard issuer token create -method join_key -ttl 24h -uses 100 -cidr 10.1.0.0/16 -group web -selector rack:7`
	f := tokenFlags{method: cli.Choice{Value: "join_key", Accepts: []string{"join_key", "join_token"}}, ttl: lifetime(10 * time.Minute), uses: 1}
	fs := v.Flags()
	fs.Var(&f.method, "method", "that the token is for")
	fs.Var(&f.ttl, "ttl", "how long it may be used")
	fs.IntVar(&f.uses, "uses", f.uses, "`NUMBER` of nodes that may join with it; of join_key only")
	fs.Var(&f.cidrs, "cidr", "`NETWORK` that nodes must come from, like 10.1.0.0/16; may be given more than once; of join_key only")
	fs.Var(&f.selectors, "selector", "`TYPE:VALUE` that each node has that joins with it; may be given more than once; of join_key only")
	fs.StringVar(&f.group, "group", "", "`NAME` in the SPIFFE IDs of the agents; of join_key only")
	fs.StringVar(&f.agentID, "spiffeID", "", "SPIFFE `ID` that entries can name as parent for the agent; of tokens for one node")
	fs.StringVar(&f.read, "tokenFile", "", "`FILE` with the token to use, - for standard input (default: a random one)")
	fs.StringVar(&f.output, "write", "", "write the token to `FILE` (0600) and do not print it")
	v.RunE = func(*cobra.Command, []string) error {
		req, err := f.request(env)
		if err != nil {
			return err
		}
		return v.ownCall(func(ctx context.Context, c operationsv1.OperationsClient) error {
			made, err := c.CreateToken(ctx, req)
			if err != nil {
				return err
			}
			return f.tell(v, made)
		})
	}
	return cli.ExitLikeLanyard(v.Command)
}

func (f *tokenFlags) request(env *cli.Env) (*operationsv1.CreateTokenRequest, error) {
	ttl := time.Duration(f.ttl)
	var errs []error
	if ttl < time.Second {
		errs = append(errs, cli.Usagef("-ttl %v: want 1s or more", ttl))
	}
	if f.uses < 1 || f.uses > 1<<31-1 {
		errs = append(errs, cli.Usagef("-uses %d: want 1 or more", f.uses))
	}
	if f.method.Value == "join_token" && (f.uses != 1 || len(f.cidrs) > 0 || len(f.selectors) > 0 || f.group != "") {
		errs = append(errs, cli.Usagef("-uses, -cidr, -selector and -group go with -method join_key only"))
	}
	if f.uses > 1 && f.agentID != "" {
		errs = append(errs, cli.Usagef("-spiffeID goes with -uses 1 only: it names one agent; entries for all can select what -selector gives them"))
	}
	for _, c := range f.cidrs {
		if _, err := netip.ParsePrefix(c); err != nil {
			errs = append(errs, cli.Usagef("-cidr %q is no network: want one like 10.1.0.0/16 or fd00::/8", c))
		}
	}
	agent, idErr := optionalID("spiffeID", f.agentID)
	sel, selErr := selectors(f.selectors)
	if err := errors.Join(append(errs, idErr, selErr)...); err != nil {
		return nil, err
	}
	req := &operationsv1.CreateTokenRequest{
		Method: f.method.Value, Ttl: int64((ttl + time.Second - 1) / time.Second), AllowedCidrs: f.cidrs, Selectors: sel, Group: f.group, AgentId: agent,
	}
	if f.method.Value == "join_key" {
		req.MaxUses = int32(f.uses)
	}
	if f.read != "" {
		token, err := readSecret(env, f.read, "token")
		if err != nil {
			return nil, err
		}
		req.Token = token
	}
	return req, nil
}

// maxSecret bounds a token or a passphrase, in bytes.
const maxSecret = 4096

// readSecret reads the one line of a file, or of standard input for "-". It is never repeated in an error.
func readSecret(env *cli.Env, path, what string) (string, error) {
	text, err := "", error(nil)
	typed := false
	if path == "-" {
		text, typed, err = cli.ReadTyped(env.Stdin, env.Stderr, what)
	}
	if !typed {
		var data []byte
		data, err = readData(env.Stdin, path)
		text = string(data)
	}
	if err != nil {
		return "", err
	}
	line := strings.TrimRight(text, "\r\n")
	switch {
	case line == "":
		return "", fmt.Errorf("%s is empty: want the %s, in one line", inputName(path), what)
	case len(line) > maxSecret || strings.ContainsAny(line, "\r\n"):
		return "", fmt.Errorf("%s holds more than one line: want the %s alone", inputName(path), what)
	}
	return line, nil
}

func (f *tokenFlags) tell(v *verb, made *operationsv1.CreateTokenResponse) error {
	if f.output != "" {
		file := cli.Artifact{Path: f.output, Data: []byte(made.Token + "\n"), Mode: 0o600}
		if !v.out.JSON() {
			file.What = "Token written to %s\n"
		}
		if err := cli.WriteFiles(v.env.Stdout, file); err != nil {
			return fmt.Errorf("token %s was made, but: %w", made.Id, err)
		}
		made.Token = ""
	}
	return v.out.Proto(v.env.Stdout, made, func(w io.Writer) {
		if made.Token != "" {
			fmt.Fprintf(w, "Token: %s\n", made.Token)
		}
		fmt.Fprintf(w, "Token ID: %s\nExpires at: %s\n", made.Id, stamp(made.ExpiresAt))
	})
}
