package agentcli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/cli"
)

// defaultTimeout is SPIRE's.
const defaultTimeout = 5 * time.Second

func fetchX509(env *cli.Env, name string) *cobra.Command {
	v := newVerb(env, name, "Fetch this process's X.509-SVIDs")
	v.Example = "  lanyard agent api fetch x509 -write /run/me"
	var out cli.Output
	out.AddFlag(v.Flags())
	timeout, dir, silent := defaultTimeout, "", false
	v.Flags().DurationVar(&timeout, "timeout", timeout, "how long to wait for the answer; 0 is for ever")
	v.Flags().StringVar(&dir, "write", "", "write svid.N.pem, svid.N.key (0600), bundle.N.pem and federated_bundle.N.M.pem into `DIR`")
	v.Flags().BoolVar(&silent, "silent", false, "print nothing on standard output")
	v.RunE = spireErrors(env, "", func() error {
		stdout := env.Stdout
		if silent {
			stdout = io.Discard
		}
		cc, err := v.connect()
		if err != nil {
			return err
		}
		defer cc.Close()
		start := time.Now()
		resp, err := fetch(v.Context(), cc, timeout)
		if err != nil {
			return explain(err)
		}
		took := time.Since(start)
		svids, err := parse(resp)
		if err != nil {
			return fmt.Errorf("the agent's answer: %w", err)
		}
		if err := out.Proto(stdout, resp, func(w io.Writer) { printSVIDs(w, svids, took) }); err != nil || dir == "" {
			return err
		}
		switch {
		case out.JSON():
			stdout = io.Discard
		case env.Dialect == cli.SPIREAgent:
			stdout = env.Stdout // it tells of files even if it is to be silent
		}
		return cli.WriteFiles(stdout, artifacts(dir, svids)...)
	})
	return v.Command
}

// fetch takes the first answer of a FetchX509SVID stream.
func fetch(ctx context.Context, cc *grpc.ClientConn, timeout time.Duration) (*workload.X509SVIDResponse, error) {
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx, "workload.spiffe.io", "true"))
	defer cancel()
	if timeout > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, timeout)
		defer stop()
	}
	stream, err := workload.NewSpiffeWorkloadAPIClient(cc).FetchX509SVID(ctx, &workload.X509SVIDRequest{})
	if err != nil {
		return nil, err
	}
	return stream.Recv()
}

// explain adds what to do about the usual refusals.
func explain(err error) error {
	told := cli.RPCError(err)
	switch status.Code(err) {
	case codes.PermissionDenied:
		return cli.Hint(told, "no entry fits this process: one needs this agent as its parent and selectors this process has, like unix:uid:%d; as root, lanyard agent explain -pid $$ says more", os.Geteuid())
	case codes.DeadlineExceeded:
		return cli.Hint(told, "the agent did not answer in time: look at its log, or wait longer with -timeout")
	case codes.Unavailable:
		if strings.Contains(told.Error(), "could not be attested") {
			return cli.Hint(told, "one of the agent's workload attestors fails: as root, lanyard agent explain -pid $$ says which, and why")
		}
		return cli.Hint(told, "the agent is not ready yet: look at its log, and try again")
	case codes.Unimplemented:
		if strings.HasPrefix(told.Error(), "unknown service") {
			return cli.Hint(told, "what answers there is no Workload API: an agent has it on its socket_path, not on its admin socket, and not with disable_workload_api")
		}
	}
	return told
}

// artifacts are the files of -write, named as SPIRE names them.
func artifacts(dir string, svids []*svid) []cli.Artifact {
	var files []cli.Artifact
	add := func(what, name string, data []byte, private bool) {
		f := cli.Artifact{What: what + " to file %s.\n", Path: filepath.Join(dir, name), Data: data, Mode: 0o644}
		if private {
			f.Mode = 0o600
		}
		files = append(files, f)
	}
	for i, s := range svids {
		add(fmt.Sprintf("Writing SVID #%d", i), fmt.Sprintf("svid.%d.pem", i), cli.PEM("CERTIFICATE", raw(s.chain)...), false)
		add(fmt.Sprintf("Writing key #%d", i), fmt.Sprintf("svid.%d.key", i), cli.PEM("PRIVATE KEY", s.key), true)
		add(fmt.Sprintf("Writing bundle #%d", i), fmt.Sprintf("bundle.%d.pem", i), cli.PEM("CERTIFICATE", raw(s.bundle)...), false)
		for j, f := range s.federated {
			add(fmt.Sprintf("Writing federated bundle #%d for trust domain %s", j, f.name), fmt.Sprintf("federated_bundle.%d.%d.pem", i, j), cli.PEM("CERTIFICATE", raw(f.bundle)...), false)
		}
	}
	return files
}
