package rego

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar/policy"
)

const onTunnel = "package test\nallow if input.tunnel == \"yes\"\n"

var yes, no = policy.Request{Tunnel: "yes"}, policy.Request{Tunnel: "no"}

// Only the one result true allows.
func TestAnswers(t *testing.T) {
	for text, reason := range map[string]string{
		"":                                   "is undefined",
		"allow := false":                     "",
		"allow := 1":                         "is 1, not true",
		`allow := "true"`:                    "is true, not true",
		"allow := {\"a\": [true]}":           "is map[a:[true]], not true",
		"allow if { input.x.y.z }":           "is undefined",
		"allow := x if { some x in [1, 2] }": "failed: line 2: eval_conflict_error: rule data.test.allow produced conflicting values",
		"allow contains 1":                   "is [1], not true",
		"allow if { 1 / 0 == 1 }":            "is undefined",
	} {
		got, err := file(t, "package test\n"+text+"\n").Allow(t.Context(), yes)
		said := ""
		if err != nil {
			said = err.Error()
		}
		if got || said != reason {
			t.Errorf("%s: %v, %q, want %q", text, got, said, reason)
		}
	}
	path := write(t, "policy.rego", "package test\nallow := true\nnames := [1, 2]\n")
	for query, reason := range map[string]string{
		"data.test.allow; data.test.allow": "has more than one result: ask for one value, without variables",
		"data.test.names[_]":               "has more than one result: ask for one value, without variables",
		"x := data.test.allow":             "has more than one result: ask for one value, without variables",
		"data.nothing":                     "is undefined",
	} {
		e, err := New(policy.Rego{Path: path, Query: query}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		want(t, e, yes, false, reason)
	}
}

func TestUnreadEngineRefuses(t *testing.T) {
	e, err := New(policy.Rego{Path: "nowhere.rego", Query: "data.test.allow"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want(t, e, yes, false, "has not been read yet")
}

const endless = "package test\nallow if { some i in numbers.range(1, 30000); some j in numbers.range(1, 30000); i * j == -1 }\n"

func TestTimeLimit(t *testing.T) {
	e, err := New(policy.Rego{Path: write(t, "policy.rego", endless), Query: "data.test.allow", Timeout: 20 * time.Millisecond}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(t, e, yes, false, "took longer than 20ms")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("the peer went away"))
	if ok, err := e.Allow(ctx, yes); ok || err == nil || err.Error() != "was cut off: the peer went away" {
		t.Error(ok, err)
	}
}

// A policy that does not parse, or is gone, never replaces a good one.
func TestReloadKeepsTheOldPolicy(t *testing.T) {
	path := write(t, "policy.rego", onTunnel)
	e := loaded(t, path)
	for name, broken := range map[string]string{
		"parse":    "package test\nallow if {",
		"function": "package test\nallow if nothing(1)\n",
		"gone":     "",
	} {
		rewrite(t, path, broken)
		if name == "gone" {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		err := e.Reload(t.Context())
		if err == nil || !strings.HasPrefix(err.Error(), "rego "+path+": ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
		want(t, e, yes, true, "")
		want(t, e, no, false, "is undefined")
	}
	rewrite(t, path, "package test\nallow if input.tunnel == \"no\"\n")
	if err := e.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(t, e, no, true, "")
	want(t, e, yes, false, "is undefined")
}

func TestReloadWhileAsked(t *testing.T) {
	path := directory(t, map[string]string{"test.rego": "package test\nallow := true\n"})
	e := loaded(t, path)
	before := openFiles(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				want(t, e, yes, true, "")
			}
		})
	}
	for range 10 {
		if err := e.Reload(t.Context()); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	if after := openFiles(t); after > before {
		t.Errorf("%d files are open, %d before", after, before)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc here")
	}
	return len(entries)
}

func TestLogs(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	e, err := New(policy.Rego{Path: write(t, "policy.rego", "package test\nallow if { print(\"asked by\", input.tunnel); true }\n"), Query: "data.test.allow"}, log)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(t, e, yes, true, "")
	for _, line := range []string{`msg="policy loaded"`, `query=data.test.allow language="Rego v1"`, `level=DEBUG msg="policy printed" text="asked by yes"`} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("no %s in\n%s", line, &out)
		}
	}
}

// A policy's failure is nobody's entrance, whatever it is.
func TestPanicRefuses(t *testing.T) {
	e := file(t, "package test\nallow if not input.certificate.PublicKey\n")
	r := yes
	r.Certificate = certificate(t, ecdsaKey(t))
	r.Certificate.PublicKey = panicking{}
	if ok, err := e.Allow(t.Context(), r); ok || err == nil || !strings.HasPrefix(err.Error(), "failed: ") {
		t.Error(ok, err)
	}
}

type panicking struct{}

func (panicking) MarshalJSON() ([]byte, error) { panic("odd key") }
