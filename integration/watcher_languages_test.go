package integration

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// watcher is a workload that keeps its identity with the client of its language, and answers questions about what that
// holds now: "x509" by `x509 ID SERIAL`, once it has verified the SVID with the bundle; "bundle" by `bundle AUTHORITIES`;
// "jwt", for which it asks the agent, by `jwt ID`, once it has validated the token.
type watcher interface {
	ask(ctx context.Context, question string) (string, error)
}

// goWatcher is this process.
type goWatcher struct {
	x509    *workloadapi.X509Source
	jwt     *workloadapi.JWTSource
	bundles *workloadapi.BundleSource
}

func newGoWatcher(t *testing.T, d *harness.Domain) goWatcher {
	t.Helper()
	addr := workloadapi.WithClientOptions(workloadapi.WithAddr(d.WorkloadAPI()))
	ctx, cancel := context.WithTimeout(t.Context(), watchLimit)
	defer cancel()
	var w goWatcher
	var err error
	if w.x509, err = workloadapi.NewX509Source(ctx, addr); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.x509.Close() })
	if w.jwt, err = workloadapi.NewJWTSource(ctx, addr); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.jwt.Close() })
	if w.bundles, err = workloadapi.NewBundleSource(ctx, addr); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.bundles.Close() })
	return w
}

func (w goWatcher) ask(ctx context.Context, question string) (string, error) {
	svid, err := w.x509.GetX509SVID()
	if err != nil {
		return "", err
	}
	switch question {
	case "x509":
		_, _, err := x509svid.Verify(svid.Certificates, w.x509)
		return fmt.Sprintf("x509 %s %d", svid.ID, svid.Certificates[0].SerialNumber), err
	case "bundle":
		bundle, err := w.bundles.GetBundleForTrustDomain(svid.ID.TrustDomain())
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("bundle %d", len(bundle.X509Authorities())), nil
	default:
		fetched, err := w.jwt.FetchJWTSVID(ctx, jwtsvid.Params{Audience: "shop"})
		if err != nil {
			return "", err
		}
		valid, err := jwtsvid.ParseAndValidate(fetched.Marshal(), w.jwt, []string{"shop"})
		if err != nil {
			return "", err
		}
		return "jwt " + valid.ID.String(), nil
	}
}

// otherWatcher is a program that takes questions on its standard input.
type otherWatcher struct {
	*harness.Process
	mu    sync.Mutex
	stdin io.Writer
	asked int
}

func startWatcher(t *testing.T, d *harness.Domain, name, path string, args ...string) *otherWatcher {
	t.Helper()
	cmd := exec.Command(path, args...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	return &otherWatcher{Process: d.StartCmd(name, cmd), stdin: stdin}
}

func (w *otherWatcher) ask(ctx context.Context, question string) (string, error) {
	w.mu.Lock()
	w.asked++
	head := fmt.Sprintf("#%d ", w.asked)
	_, err := io.WriteString(w.stdin, strings.TrimPrefix(head, "#")+question+"\n")
	w.mu.Unlock()
	if err != nil {
		return "", err
	}
	line, err := w.WaitFor(ctx, head)
	if err != nil {
		return "", err
	}
	answer := strings.TrimPrefix(line, head)
	if what, failed := strings.CutPrefix(answer, "error "); failed {
		return "", fmt.Errorf("%s: %s", w.Name, what)
	}
	return answer, nil
}

//go:embed clients/client.py
var pythonWatcher string

// javaClient skips the test where the Java client is not installed; it returns the real path of java, and its arguments.
func javaClient(t *testing.T) (path string, args []string) {
	t.Helper()
	path, err := exec.LookPath("java")
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err == nil {
		_, err = os.Stat(tools("java", "from.txt"))
	}
	if err != nil {
		t.Skip("no Java client in .tools/java: make test installs it where it can")
	}
	return path, []string{"-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", tools("java", "classes") + ":" + tools("java", "jars", "*"), "Client"}
}
