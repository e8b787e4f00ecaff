package integration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/integration/harness"
	"github.com/lanyard-mtls/lanyard/integration/traffic"
)

// faultSize is how much of everything a run has.
type faultSize struct {
	talks, flood, loris int
	lasts, svidTTL      time.Duration // an agent replaces an SVID at half its life
	away                time.Duration // of the backend and of the agent, each time
	patience            time.Duration // of the sidecars with a handshake
}

func faultRunSize() faultSize {
	if soak() {
		return faultSize{talks: 2000, flood: 8000, loris: 200, lasts: 2 * time.Minute, svidTTL: 10 * time.Second, away: 3 * time.Second,
			patience: 5 * time.Second}
	}
	return faultSize{talks: 300, flood: 1200, loris: 20, lasts: 6 * time.Second, svidTTL: 6 * time.Second, away: 300 * time.Millisecond,
		patience: 3 * time.Second}
}

// spareMemory is what a sidecar may keep, a minute after all is over, of what it took. A soak looks at it: the runtime
// takes its time to give memory back.
const spareMemory = 16 << 20

// TestFaultsLoseNothing breaks everything around a pair of sidecars at once, and then asks for each byte, each
// record, each descriptor and the memory.
func TestFaultsLoseNothing(t *testing.T) {
	size := faultRunSize()
	tr, err := traffic.New(traffic.Options{Every: 400 * time.Millisecond, Limit: size.lasts + 5*time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.Finish)
	p := newPair(t, newDomain(t), tr.Target(), size.svidTTL, "--connect-timeout", size.patience.String(), "--enable-pprof")
	before := map[*harness.Sidecar]held{p.client: hold(t, p.client), p.server: hold(t, p.server)}
	talks, err := tr.Open(t.Context(), p.client.Listen, size.talks)
	if err != nil {
		t.Fatal(err)
	}
	for side := range before {
		t.Logf("%s with %d conversations: %v, at first %v", side.Name, size.talks, hold(t, side), before[side])
	}
	breakAll(t, p, tr, talks, size)
	tr.Finish()
	report := tr.Check()
	t.Log(report)
	for i, fault := range report.Faults[:min(10, len(report.Faults))] {
		t.Errorf("fault %d of %d: %v", i+1, len(report.Faults), fault)
	}
	if least := size.talks * 6 / 10; report.Whole < least {
		t.Errorf("%d conversations came through whole, at least %d were not touched", report.Whole, least)
	}
	oneEach(t, p.client, report.Talks)
	oneEach(t, p.server, report.Talks+size.flood+size.loris)
	for side, at := range before {
		held := map[any]bool{}
		for _, identity := range side.Logged("identity received") {
			held[identity["not_after"]] = true
		}
		if t.Logf("%s held %d identities", side.Name, len(held)); len(held) < 2 {
			t.Errorf("%s: its identity was not replaced", side.Name)
		}
		at.givenBack(t, side)
	}
}

// breakAll runs every fault beside the others.
func breakAll(t *testing.T, p *pair, tr *traffic.Traffic, talks []*traffic.Talk, size faultSize) {
	ctx, cancel := context.WithTimeout(t.Context(), size.lasts)
	defer cancel()
	var faults sync.WaitGroup
	defer faults.Wait()
	faults.Go(func() { // the backend flaps
		for wait(ctx, size.lasts/5) {
			tr.Down(func(talk *traffic.Talk) bool { return talk.ID%10 == 0 })
			wait(t.Context(), size.away)
			if err := tr.Up(); err != nil {
				t.Error(err)
			}
		}
	})
	faults.Go(func() { // clients that never finish a handshake
		if err := traffic.Flood(t.Context(), p.server.Listen, size.flood); err != nil {
			t.Error(err)
		}
	})
	faults.Go(func() {
		if _, err := traffic.Loris(t.Context(), p.server.Listen, size.loris, 20*time.Millisecond); err != nil {
			t.Error(err)
		}
	})
	faults.Go(func() { loseClients(t, talks) })
	faults.Go(func() { // new conversations, on whatever identity there is
		for wait(ctx, 50*time.Millisecond) {
			if _, err := tr.Open(t.Context(), p.client.Listen, 1); err != nil {
				t.Error(err)
			}
		}
	})
	for wait(ctx, size.lasts/4) { // the agent; in the test's goroutine, which starting one may end
		p.domain.Agent.Kill()
		wait(t.Context(), size.away)
		p.domain.StartAgent("")
	}
}

// wait tells whether the time passed before ctx ended.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// loseClients lets some clients crash, and others vanish without a FIN.
func loseClients(t *testing.T, talks []*traffic.Talk) {
	for _, talk := range talks {
		switch talk.ID % 10 {
		case 1:
			talk.Reset()
		case 2:
			if err := talk.Vanish(); traffic.NeedsPrivilege(err) {
				t.Logf("no client vanishes: %v", err)
				return
			} else if err != nil && !errors.Is(err, net.ErrClosed) { // it may have ended by another fault
				t.Error(err)
			}
		}
	}
}

// oneEach waits for n records of connections, and fails the test if there are more.
func oneEach(t *testing.T, side *harness.Sidecar, n int) {
	t.Helper()
	var records []map[string]any
	err := harness.Until(t.Context(), time.Minute, side.Name+" to record", func(context.Context) error {
		records = side.Logged("connection")[side.Probes():]
		return atLeast(len(records), n)
	})
	causes := map[any]int{}
	for _, record := range records {
		causes[record["cause"]]++
	}
	t.Logf("%s: %v", side.Name, causes)
	if err != nil || len(records) != n {
		t.Errorf("%s: %d records of %d connections: %v", side.Name, len(records), n, err)
	}
}

// held is what a sidecar holds.
type held struct {
	harness.Held
	goroutines int
}

func (h held) String() string {
	return fmt.Sprintf("%d files, %d goroutines, %.1f MiB", h.Files, h.goroutines, float64(h.RSS)/(1<<20))
}

var goroutineLine = regexp.MustCompile(`(?m)^goroutine profile: total (\d+)$`)

// hold is what a sidecar holds now. The request for its goroutines takes a descriptor for itself.
func hold(t *testing.T, side *harness.Sidecar) held {
	t.Helper()
	var h held
	text, err := harness.Get(t.Context(), &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
		"http://"+side.Status+"/debug/pprof/goroutine?debug=1")
	if match := goroutineLine.FindStringSubmatch(text); match != nil {
		h.goroutines, _ = strconv.Atoi(match[1])
	} else {
		t.Fatalf("%s: no count of goroutines: %v", side.Name, err)
	}
	if h.Held, err = side.Held(); err != nil {
		t.Fatal(err)
	}
	return h
}

// givenBack waits until a sidecar holds no more than at first.
func (at held) givenBack(t *testing.T, side *harness.Sidecar) {
	t.Helper()
	begun := time.Now()
	var now held
	err := harness.Until(t.Context(), time.Minute, side.Name+" to give everything back", func(context.Context) error {
		now = hold(t, side)
		if now.Files > at.Files || now.goroutines > at.goroutines || soak() && now.RSS > at.RSS+spareMemory {
			return fmt.Errorf("%v, at first %v", now, at)
		}
		return nil
	})
	t.Logf("%s after %v: %v, at first %v", side.Name, time.Since(begun).Round(time.Millisecond), now, at)
	if err != nil {
		t.Error(err)
	}
}
