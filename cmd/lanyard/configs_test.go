package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/testca"
)

var update = flag.Bool("update", false, "write the expected messages of configs/bad as they are now")

// execute runs a command line in this process, as root would be where root is told.
func execute(t *testing.T, vars map[string]string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errOut bytes.Buffer
	env := &cli.Env{
		Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errOut, Exit: func(int) { t.Error("exit") }, Root: true,
		Getenv: func(name string) string { return vars[name] },
	}
	code = cli.Execute(t.Context(), env, root(env), args)
	return out.String(), errOut.String(), code
}

func TestBadConfigsSayWhatIsWrong(t *testing.T) {
	t.Chdir("../../configs/bad")
	files, err := filepath.Glob("*.hcl")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(file, func(t *testing.T) {
			role, _, _ := strings.Cut(file, "-")
			_, got, code := execute(t, nil, role, "validate", "-config", file)
			if code != 1 {
				t.Errorf("exit code %d", code)
			}
			wantFile := strings.TrimSuffix(file, ".hcl") + ".want"
			if *update {
				if err := os.WriteFile(wantFile, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(wantFile)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("(-want +got) %s", diff)
			}
			if _, _, again := execute(t, nil, role, "run", "-config", file); again != 1 {
				t.Errorf("run: exit code %d", again)
			}
		})
	}
}

func TestSampleConfigsAreValid(t *testing.T) {
	ca := testca.New(t, "example.org")
	bundle, err := ca.Bundle().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for _, role := range []string{"issuer", "agent", "sidecar"} {
		sample, _, code := execute(t, nil, role, "sample")
		onDisk, err := os.ReadFile("../../configs/" + role + ".hcl")
		if err != nil || code != 0 || sample != string(onDisk) {
			t.Errorf("%s sample: exit code %d, %v, not what configs/%s.hcl is", role, code, err, role)
		}
		t.Run(role, func(t *testing.T) {
			t.Chdir(t.TempDir())
			if err := os.WriteFile("bundle.pem", bundle, 0o600); err != nil {
				t.Fatal(err)
			}
			for what, text := range map[string]string{"as it is": sample, "all settings on": uncommented(sample)} {
				if err := os.WriteFile("conf.hcl", []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile("token", []byte("b5c5bb8c-0e2b-4b2a-9a9a-0d8a0f3a2f10\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				if _, stderr, code := execute(t, nil, role, "validate", "-config", "conf.hcl"); code != 0 {
					t.Errorf("%s: exit code %d: %s", what, code, stderr)
				}
			}
		})
	}
}

// TestSampleSidecarsAreValid checks the samples that no verb prints.
func TestSampleSidecarsAreValid(t *testing.T) {
	files, err := filepath.Glob("../../configs/sidecar-*.hcl")
	if err != nil || len(files) < 3 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		if _, stderr, code := execute(t, nil, "sidecar", "validate", "-config", file); code != 0 {
			t.Errorf("%s: exit code %d: %s", file, code, stderr)
		}
	}
}

// uncommented turns "# key = value" into "key = value": what a sample offers must work too.
func uncommented(sample string) string {
	var b strings.Builder
	for line := range strings.Lines(sample) {
		setting := strings.TrimPrefix(strings.TrimSpace(line), "# ")
		if key, _, ok := strings.Cut(setting, " = "); ok && !strings.Contains(key, " ") {
			line = setting + "\n"
		}
		b.WriteString(line)
	}
	return b.String()
}
