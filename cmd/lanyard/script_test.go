package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/lanyard-mtls/lanyard/internal/testca"
)

func TestMain(m *testing.M) {
	exit := func() { os.Exit(lanyard()) }
	testscript.Main(m, map[string]func(){"lanyard": exit, "spire-server": exit, "spire-agent": exit, "ghostunnel": exit})
}

// TestScripts runs the command lines in testdata/script against the real thing: each process of a script is this test binary
// by another name, with its state below the script's own directory.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: *update,
		Setup: func(env *testscript.Env) error {
			env.Setenv("LANYARD_STATE_DIR", filepath.Join(env.WorkDir, "st"))
			env.Setenv("UID", fmt.Sprint(os.Getuid()))
			env.Setenv("SAMPLES", mustAbs(t, "../../configs"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"until":  until,
			"log":    waitLog,
			"code":   code,
			"json":   jsonValue,
			"bundle": foreignBundle(t),
			"mode":   mode,
			"past":   past,
			"certs":  certs(t),
		},
	})
}

func mustAbs(t *testing.T, path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}

// patience bounds all waiting, which ends as soon as what is waited for is there.
const patience = 30 * time.Second

// retry calls try until it is content.
func retry(ts *testscript.TestScript, what string, try func() bool) {
	limit := time.NewTimer(patience)
	defer limit.Stop()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for !try() {
		select {
		case <-limit.C:
			ts.Fatalf("%s: not within %v", what, patience)
		case <-again.C:
		}
	}
}

// until COMMAND...: runs it again and again until it succeeds (with !, fails).
func until(ts *testscript.TestScript, neg bool, args []string) {
	retry(ts, strings.Join(args, " "), func() bool { return (ts.Exec(args[0], args[1:]...) == nil) != neg })
}

// log FILE REGEXP [VAR]: waits until the file has the regexp, and sets VAR to its first group.
func waitLog(ts *testscript.TestScript, _ bool, args []string) {
	re := regexp.MustCompile(args[1])
	var text []byte
	defer func() {
		if !re.Match(text) {
			ts.Logf("%s:\n%s", args[0], text)
		}
	}()
	retry(ts, fmt.Sprintf("%s in %s", args[1], args[0]), func() bool {
		text, _ = os.ReadFile(ts.MkAbs(args[0]))
		m := re.FindSubmatch(text)
		if m != nil && len(args) > 2 {
			ts.Setenv(args[2], string(m[1]))
		}
		return m != nil
	})
}

// code N COMMAND...: runs it and wants exit code N.
func code(ts *testscript.TestScript, _ bool, args []string) {
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if fmt.Sprint(got) != args[0] {
		ts.Fatalf("exit code %d, want %s", got, args[0])
	}
}

// json FILE PATH VAR: sets VAR to the value at the path, "entries.0.id", of a JSON file.
func jsonValue(ts *testscript.TestScript, _ bool, args []string) {
	var v any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &v))
	for step := range strings.SplitSeq(args[1], ".") {
		switch at := v.(type) {
		case map[string]any:
			v = at[step]
		case []any:
			var i int
			if _, err := fmt.Sscan(step, &i); err != nil || i >= len(at) {
				ts.Fatalf("%s: no %s in %v", args[1], step, at)
			}
			v = at[i]
		}
	}
	ts.Setenv(args[2], fmt.Sprint(v))
}

// bundle FILE TRUST_DOMAIN: writes a bundle that no issuer here signs with.
func foreignBundle(t *testing.T) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, _ bool, args []string) {
		pem, err := testca.New(t, args[1]).Bundle().Marshal()
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(args[0]), pem, 0o600))
	}
}

// mode FILE MODE: wants the permissions.
func mode(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[1] {
		ts.Fatalf("%s has mode %s, want %s", args[0], got, args[1])
	}
}

// past UNIX_SECONDS: waits until that second is over.
func past(ts *testscript.TestScript, _ bool, args []string) {
	var seconds int64
	if _, err := fmt.Sscan(args[0], &seconds); err != nil {
		ts.Fatalf("past %s: %v", args[0], err)
	}
	<-time.After(time.Until(time.Unix(seconds+1, 0)))
}
