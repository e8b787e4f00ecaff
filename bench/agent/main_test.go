package main

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-mtls/lanyard/bench/report"
)

func TestParse(t *testing.T) {
	set, err := parse([]string{"-run", "first, calls", "-small", "-only", "lanyard"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if !set.runs("first") || set.runs("streams") || len(set.entries) != 1 {
		t.Errorf("got %+v", set)
	}
	for _, bad := range []string{"-run nothing", "-also spoon", "more", "-starts many"} {
		if _, err := parse(strings.Fields(bad), io.Discard); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
}

func TestPairs(t *testing.T) {
	names := func(args ...string) (names []string, base string) {
		set, err := parse(args, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		pairs, base, err := set.pairs()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range pairs {
			names = append(names, p.name)
		}
		return names, base
	}
	got, base := names("-peers", "/peers", "-also", "before=/tmp/a")
	if diff := cmp.Diff([]string{"spire", "lanyard", "before", "lanyard-under-spire"}, got); diff != "" || base != "spire" {
		t.Errorf("base %s\n%s", base, diff)
	}
	got, base = names("-peers", "")
	if diff := cmp.Diff([]string{"lanyard"}, got); diff != "" || base != "lanyard" {
		t.Errorf("base %s\n%s", base, diff)
	}
}

func TestTimes(t *testing.T) {
	m := &measurement{pair: pair{name: "it"}, report: report.New("it", []string{"it"}, nil), progress: io.Discard}
	var samples []time.Duration
	for i := range 200 {
		samples = append(samples, time.Duration(200-i)*time.Millisecond)
	}
	m.times("s", "n", samples)
	for name, want := range map[string]float64{"n, p50": 100, "n, p99": 198} {
		if got := m.report.Median(report.Row{Section: "s", Name: name, Unit: "ms"}, "it"); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

func TestWatcherExpects(t *testing.T) {
	w := &watcher{wants: map[*want]bool{}, last: told{ids: map[string]bool{"spiffe://" + trustDomain + "/here": true}}}
	if _, err := w.wait(t.Context(), w.expect(func(t told) bool { return t.has("/here") })); err != nil {
		t.Error(err)
	}
	w.err = io.EOF
	if _, err := w.wait(t.Context(), w.expect(func(told) bool { return true })); err != io.EOF {
		t.Errorf("of a stream that has ended: %v", err)
	}
}
