package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// demo builds the demo and runs it in a directory for temporary files of its own, which it must leave empty. It returns
// the exit code and what was printed.
func demo(t *testing.T, envoy string, env ...string) (int, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "lydemo")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	binary := filepath.Join(t.TempDir(), "demo")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", binary, "./demo")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build, err, out)
	}
	cmd := exec.CommandContext(t.Context(), binary, "-bin", bin, "-envoy", envoy)
	cmd.Env = append(append(os.Environ(), "TMPDIR="+dir, "DEMO_BREAK=", "DEMO_SECONDS="), env...)
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), "\x1b[") {
		t.Error("colours, though this is no terminal")
	}
	empty(t, dir)
	for _, command := range running(t) {
		if strings.Contains(command, dir) {
			t.Errorf("the demo left a process behind: %s", command)
		}
	}
	return harness.ExitCode(err), string(out)
}

// running are the command lines of all processes, with their executables' paths.
func running(t *testing.T) []string {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no processes in /proc: %v", err)
	}
	var commands []string
	for _, dir := range dirs {
		exe, _ := os.Readlink(filepath.Join(dir, "exe")) // it may have ended meanwhile
		line, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		commands = append(commands, exe+" "+strings.ReplaceAll(string(line), "\x00", " "))
	}
	return commands
}

func TestDemoHolds(t *testing.T) {
	exit, out := demo(t, envoyBinary(t))
	if exit != 0 {
		t.Fatalf("exit code %d:\n%s", exit, out)
	}
	for _, want := range []string{"/web", "/curl", "/intruder", "Hello from python3", "issuer killed", "All of it held"} {
		if !strings.Contains(out, want) {
			t.Errorf("no word of %q in:\n%s", want, out)
		}
	}
}

// TestDemoBreakIsNoticed breaks a part on purpose: the demo must fail, and for that reason.
func TestDemoBreakIsNoticed(t *testing.T) {
	for part, want := range map[string]string{
		"policy":   "policy: spiffe://lanyard.test/intruder was served",
		"rotation": "rotation: 0 of at least 3",
		"issuer":   "issuer: it did not come back",
	} {
		t.Run(part, func(t *testing.T) {
			t.Parallel()
			exit, out := demo(t, "", "DEMO_BREAK="+part, "DEMO_SECONDS=12")
			if exit != 1 {
				t.Errorf("exit code %d, want 1", exit)
			}
			if !strings.Contains(out, "FAILED") || !strings.Contains(out, want) {
				t.Errorf("no word of %q in:\n%s", want, out)
			}
		})
	}
}
