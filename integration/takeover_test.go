package integration

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// An agent takes the place of another without systemd: nobody who connects meanwhile is refused, those who watch go on, and
// one that can't start leaves the other where it is.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	s := harness.NewStage(t, bin)
	issuer := harness.StartIssuer(s, harness.IssuerSpec{})
	agent := harness.NewAgent(issuer, harness.AgentSpec{})
	agent.Start(issuer.Token(issuer.ID("/node")))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	issuer.Entry(issuer.ID("/node"), issuer.ID("/web"), self)
	fetch := func(ctx context.Context) error {
		_, err := workloadapi.FetchX509SVID(ctx, workloadapi.WithAddr(agent.WorkloadAPI()))
		return err
	}
	s.Until(fetchLimit, "an SVID", fetch)
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	clients.Go(func() {
		for ctx.Err() == nil {
			// A call that was begun may be told Unavailable, once; a connection is never refused.
			if err := fetch(ctx); err != nil && ctx.Err() == nil && (status.Code(err) != codes.Unavailable || isDial(err)) {
				t.Errorf("a client was told: %v", err)
			}
		}
	})
	clients.Go(func() {
		for ctx.Err() == nil {
			conn, err := net.Dial("unix", agent.Socket)
			if err != nil {
				t.Errorf("a client was refused: %v", err)
				return
			}
			conn.Close()
			time.Sleep(time.Millisecond) // the kernel keeps 4096 that wait
		}
	})
	was, err := os.Stat(agent.Socket)
	if err != nil {
		t.Fatal(err)
	}
	broken := s.WriteFile("broken/agent.conf", "agent {\n  trust_domain = \"lanyard.test\"\n  server_address = \"127.0.0.1\"\n  data_dir = \""+agent.Data+"\"\n  socket_path = \""+agent.Data+"\"\n  insecure_bootstrap = true\n}\nplugins {\n  NodeAttestor \"join_token\" {\n    plugin_data {}\n  }\n}\n")
	lanyard := filepath.Join(bin, "lanyard")
	if out, err := harness.Run(ctx, lanyard, "agent", "run", "-config", broken, "-takeOver"); err == nil {
		t.Errorf("an agent that can't listen took over: %s", out)
	}
	first := agent.Process
	for range 2 {
		next := s.Start("next", lanyard, "agent", "run", "-config", agent.Conf, "-takeOver")
		select {
		case <-first.Done():
			if err := first.Wait(); err != nil {
				t.Errorf("the one before: %v", err)
			}
		case <-next.Done():
			t.Fatalf("the next ended: %s", next.Log.Tail(10))
		case <-time.After(fetchLimit):
			t.Fatalf("the one before did not end: %s\nthe next: %s", first.Log.Tail(10), next.Log.Tail(10))
		}
		s.Until(fetchLimit, "an SVID of the next", fetch)
		first = next
	}
	stop()
	clients.Wait()
	if now, err := os.Stat(agent.Socket); err != nil || !os.SameFile(was, now) {
		t.Errorf("the socket's file is another: %v", err)
	}
}

func isDial(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}
