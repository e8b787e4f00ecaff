// Package integration tests scenarios on built binaries with real programs around them: curl, Python's http.server,
// Envoy, SPIRE's server and agent, ghostunnel and the clients of other languages. Each test's name begins with what it
// proves. What a single role does by itself is tested beside its code.
package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// bin is the folder of the binaries under test: $LANYARD_BIN, or built for this run.
var bin string

func TestMain(m *testing.M) { os.Exit(runAll(m)) }

func runAll(m *testing.M) int {
	if bin = os.Getenv("LANYARD_BIN"); bin != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "lybin")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // some tests run them as other users
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	build := exec.Command("go", "build", "-o", dir+"/", "./cmd/...")
	build.Dir = ".."
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintf(os.Stderr, "%v: %v\n", build, err)
		return 1
	}
	bin = dir
	return m.Run()
}

// tools is where make test puts what it fetches.
func tools(elem ...string) string {
	root, err := filepath.Abs("..")
	if err != nil {
		panic(err)
	}
	return filepath.Join(append([]string{root, ".tools"}, elem...)...)
}

// envoyBinary skips the test where Envoy is not installed.
func envoyBinary(t *testing.T) string {
	t.Helper()
	path := tools("envoy-1.40.0", "envoy")
	if _, err := os.Stat(path); err != nil {
		t.Skip("no Envoy in .tools: make test installs it where it can")
	}
	return path
}

// pythonBinary skips the test where the Python client is not installed.
func pythonBinary(t *testing.T) string {
	t.Helper()
	path := tools("venv", "bin", "python")
	if _, err := os.Stat(tools("venv", "from.txt")); err != nil {
		t.Skip("no Python client in .tools/venv: make test installs it where it can")
	}
	return path
}

// peer is a real binary; without it the test is skipped, or fails under make interop.
func peer(t *testing.T, name string) string {
	t.Helper()
	path := harness.Peer(name)
	switch {
	case path != "":
	case os.Getenv("LANYARD_REQUIRE_PEERS") == "1":
		t.Fatalf("no %s in $LANYARD_PEERS (%q)", name, os.Getenv("LANYARD_PEERS"))
	default:
		t.Skipf("no %s: set LANYARD_PEERS to a folder that has it", name)
	}
	return path
}

// curl is the answer curl gets, or its error.
func curl(ctx context.Context, addr string) (string, error) {
	return harness.Run(ctx, "curl", "-sS", "--max-time", "10", "http://"+addr+"/")
}

// soak tells whether the long forms are wanted.
func soak() bool { return os.Getenv("LANYARD_SOAK") == "1" }
