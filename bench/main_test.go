package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test binary serve as the load and the backend.
func TestMain(m *testing.M) {
	if served, err := serveRole(os.Args); served {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// smallest is enough to see that all of it works, and says nothing of any program.
var smallest = sizes{
	rounds: 2, bulk: []int{1, 3}, roundTrips: []int{2}, idle: []int{5, 50},
	warm: time.Millisecond, bulkFor: time.Millisecond, rtFor: time.Millisecond, connFor: time.Millisecond, dialling: 2,
	moved: 256 << 10, settle: time.Millisecond, given: time.Millisecond,
}

// TestWholeRun runs every part on ghostunnel and on our sidecar, those of them that are there.
func TestWholeRun(t *testing.T) {
	file := filepath.Join(t.TempDir(), "performance.md")
	if err := os.WriteFile(file, []byte("before\n"+markBegin+"\nold\n"+markEnd+"\nafter\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := parse([]string{"-bin", cmp.Or(os.Getenv("LANYARD_BIN"), "../bin"), "-only", "ghostunnel,lanyard", "-markdown", file}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	set.sizes = smallest
	var out, progress strings.Builder
	err = run(t.Context(), set, &out, &progress)
	if err != nil && strings.Contains(err.Error(), "nothing to measure") {
		t.Skip(err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, &progress)
	}
	for _, want := range []string{"3 connections", "CPU s/GB", "as they come, p99", "50 connections after 256 KiB each way", "TLS 1.3, X25519"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in what was printed:\n%s\n%s", want, &out, &progress)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(text); !strings.HasPrefix(got, "before\n"+markBegin+"\n- ") || !strings.HasSuffix(got, "\n"+markEnd+"\nafter\n") ||
		!strings.Contains(got, "| 3 connections | CPU s/GB |") || strings.Contains(got, "old") {
		t.Errorf("the Markdown file:\n%s", got)
	}
}

func TestMarkdownFileWithoutMarksIsRefusedAtOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "performance.md")
	if err := os.WriteFile(file, []byte("# Performance\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := run(t.Context(), settings{markdown: file}, os.Stderr, os.Stderr)
	if err == nil || !strings.Contains(err.Error(), markBegin) {
		t.Errorf("%v, want the mark that is missing", err)
	}
}

func TestWrongFlags(t *testing.T) {
	for _, args := range [][]string{{"-run", "bulk,speed"}, {"-rounds", "-1"}, {"-also", "new"}, {"all"}, {"-x"}} {
		if _, err := parse(args, io.Discard); err == nil {
			t.Errorf("%q was taken", args)
		}
	}
	set, err := parse([]string{"-run", "rt,bulk", "-quick", "-only", "envoy haproxy"}, io.Discard)
	if err != nil || len(set.parts) != 2 || len(set.only) != 2 || set.sizes.rounds != short.rounds {
		t.Errorf("%+v, %v", set, err)
	}
}
