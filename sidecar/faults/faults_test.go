package faults_test

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/integration/traffic"
)

// size is how much of everything a run has: little where every test runs, as much as the machine bears in a soak.
type size struct {
	talks, churn, flood, loris int
	lasts, rotation            time.Duration
}

func runSize() size {
	if os.Getenv("LANYARD_SOAK") == "1" {
		return size{talks: 500, churn: 16, flood: 2000, loris: 100, lasts: 20 * time.Second, rotation: 300 * time.Millisecond}
	}
	return size{talks: 200, churn: 4, flood: 360, loris: 10, lasts: 4 * time.Second, rotation: 200 * time.Millisecond}
}

// TestFaultsAllAtOnce holds conversations through a pair of sidecars while agents are killed and restarted, identities
// rotate, the backend flaps, clients crash or vanish, others never finish a handshake, and new conversations begin and
// end all the time.
func TestFaultsAllAtOnce(t *testing.T) {
	size := runSize()
	before := measure(t)
	tr, err := traffic.New(traffic.Options{Every: time.Duration(size.talks) * time.Millisecond / 2, Limit: size.lasts + 3*limit})
	check(t, err)
	p := newPair(t, tr.Target())
	talks, err := tr.Open(t.Context(), p.client.addr, size.talks)
	check(t, err)
	r := &run{t: t, pair: p, traffic: tr, size: size}
	r.all(talks)
	tr.Finish()
	r.verify()
	p.close()
	before.left(t)
}

// run is one run of everything.
type run struct {
	*pair
	t       *testing.T
	traffic *traffic.Traffic
	size    size
	direct  int // connections that the test made to the server sidecar itself
}

// all runs every fault beside the others.
func (r *run) all(talks []*traffic.Talk) {
	ctx, cancel := context.WithTimeout(r.t.Context(), r.size.lasts)
	defer cancel()
	var faults sync.WaitGroup
	faults.Go(func() { every(ctx, r.size.rotation, r.rotate) })
	faults.Go(func() { every(ctx, r.size.lasts/5, func() { r.killAgents(r.size.lasts / 10) }) })
	faults.Go(func() { every(ctx, r.size.lasts/4, r.flap) })
	faults.Go(func() { r.loseClients(talks) })
	faults.Go(func() { r.flood() })
	for range r.size.churn {
		faults.Go(func() { r.churn(ctx) })
	}
	faults.Wait()
}

// every does something again and again until ctx ends.
func every(ctx context.Context, pause time.Duration, do func()) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			do()
		case <-ctx.Done():
			return
		}
	}
}

// flap closes the backend's listener and resets every tenth of its connections.
func (r *run) flap() {
	r.traffic.Down(func(talk *traffic.Talk) bool { return talk.ID%10 == 0 })
	<-time.After(r.size.lasts / 40) // how long it is away is the fault
	if err := r.traffic.Up(); err != nil {
		r.t.Error(err)
	}
}

// loseClients lets some clients crash, and others vanish without a FIN.
func (r *run) loseClients(talks []*traffic.Talk) {
	for _, talk := range talks {
		switch talk.ID % 10 {
		case 1:
			talk.Reset()
		case 2:
			if err := talk.Vanish(); traffic.NeedsPrivilege(err) {
				r.t.Logf("no client vanishes: %v", err)
				return
			} else if err != nil {
				r.t.Error(err)
			}
		}
	}
}

// flood keeps the server sidecar busy with clients that never finish a handshake.
func (r *run) flood() {
	var both sync.WaitGroup
	both.Go(func() {
		lasted, err := traffic.Loris(r.t.Context(), r.server.addr, r.size.loris, 50*time.Millisecond)
		if err != nil || lasted > 3*patience {
			r.t.Errorf("clients that send half a ClientHello were borne for %v, the limit being %v: %v", lasted, patience, err)
		}
	})
	both.Go(func() { check(r.t, traffic.Flood(r.t.Context(), r.server.addr, r.size.flood)) })
	both.Wait()
	r.direct += r.size.loris + r.size.flood
}

// churn opens a conversation, lets it end by a crash of its client, and opens the next.
func (r *run) churn(ctx context.Context) {
	for ctx.Err() == nil {
		talks, err := r.traffic.Open(r.t.Context(), r.client.addr, 1)
		if err != nil {
			r.t.Error(err)
			return
		}
		select {
		case <-time.After(20 * time.Millisecond): // its length
		case <-talks[0].Ended():
		}
		talks[0].Reset()
		<-talks[0].Ended()
	}
}

// verify checks the conversations, and that each connection left one record on each sidecar that it came to.
func (r *run) verify() {
	t := r.t
	report := r.traffic.Check()
	t.Log(report)
	for i, fault := range report.Faults {
		if i == 10 {
			t.Errorf("and %d more", len(report.Faults)-i)
			break
		}
		t.Error(fault)
	}
	if least := r.size.talks * 6 / 10; report.Whole < least {
		t.Errorf("%d conversations came through whole, at least %d were not touched", report.Whole, least)
	}
	r.client.log.verify(t, "client", report.Talks)
	r.server.log.verify(t, "server", report.Talks+r.direct)
	for _, talk := range r.traffic.Talks() {
		if n := r.client.log.clients[talk.Local]; n == 0 && talk.Local != "" {
			t.Errorf("conversation %d left no record", talk.ID)
		}
	}
}

// verify waits for n records and fails the test if there are more.
func (j *journal) verify(t *testing.T, name string, n int) {
	t.Helper()
	complete := j.await(n)
	j.mu.Lock()
	defer j.mu.Unlock()
	t.Logf("%s: %v", name, j.causes)
	if !complete || j.total != n {
		t.Errorf("%s: %d records of %d connections", name, j.total, n)
	}
}

// measurement is what a process holds.
type measurement struct {
	goroutines, files int
	heap              uint64
}

func measure(t *testing.T) measurement {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	debug.FreeOSMemory() // collects garbage
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return measurement{runtime.NumGoroutine(), len(files), m.HeapAlloc}
}

// left fails the test if the process holds more than before.
func (before measurement) left(t *testing.T) {
	t.Helper()
	const spare = 8 << 20 // bytes of heap
	deadline := time.Now().Add(limit)
	for {
		now := measure(t)
		if now.goroutines <= before.goroutines && now.files <= before.files && now.heap <= before.heap+spare {
			return
		}
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("before %+v, now %+v\n%s", before, now, stacks[:runtime.Stack(stacks, true)])
		}
		<-time.After(20 * time.Millisecond) // there is no event for the end of a descriptor
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}
