package svidcache

import (
	"context"
	"crypto/x509"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
)

// many are entries as an issuer tells of them: nothing is shared between them.
func many(n int) []registration.Entry {
	entries := make([]registration.Entry, n)
	for i := range entries {
		p := registration.Entry{
			ID:       fmt.Sprintf("00000000-0000-4000-8000-%012d", i),
			SPIFFEID: spiffeid.RequireFromString(fmt.Sprintf("spiffe://example.org/ns/production/sa/service-%d", i)),
			ParentID: spiffeid.RequireFromString("spiffe://example.org/spire/agent/join_token/6c7a"),
			Selectors: []registration.Selector{
				{Type: "k8s", Value: "ns:production"}, {Type: "k8s", Value: fmt.Sprintf("sa:service-%d", i)},
			},
			CreatedAt: time.Unix(1_800_000_000, 0),
		}.Proto()
		e, err := registration.FromProto(p)
		if err != nil {
			panic(err)
		}
		entries[i] = e
	}
	return entries
}

// signer answers every request with a certificate made beforehand for nobody: it
// costs a key and a signature, as an issuer's answer costs at least.
type signer struct {
	ca *testca.CA
	tb testing.TB
}

func (s signer) SignX509SVIDs(_ context.Context, reqs []upstream.CSR) ([]upstream.Signed, error) {
	answers := make([]upstream.Signed, len(reqs))
	for i, r := range reqs {
		csr, err := x509.ParseCertificateRequest(r.DER)
		if err != nil {
			return nil, err
		}
		var n int
		fmt.Sscanf(r.EntryID, "00000000-0000-4000-8000-%d", &n)
		cert := s.ca.Sign(s.tb, fmt.Sprintf("spiffe://example.org/ns/production/sa/service-%d", n), csr.PublicKey)
		answers[i].Chain = []*x509.Certificate{cert}
	}
	return answers, nil
}

func service(i int) Caller {
	return Caller{Selectors: []registration.Selector{
		{Type: "k8s", Value: "ns:production"}, {Type: "k8s", Value: fmt.Sprintf("sa:service-%d", i)}, {Type: "unix", Value: "uid:0"},
	}}
}

// loaded is a cache with so many entries that no SVIDs are prefetched of.
func loaded(b *testing.B, n int) (*Cache, upstream.Update) {
	b.Helper()
	ca := testca.New(b, "example.org")
	c := New(Config{TrustDomain: ca.TrustDomain, Signer: signer{ca, b}, MaxSize: 1})
	u := upstream.Update{Whole: true, Entries: many(n), Bundle: ca.Bundle()}
	c.Apply(u)
	return c, u
}

func sizes(b *testing.B, bench func(b *testing.B, n int)) {
	for _, n := range []int{1000, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) { bench(b, n) })
	}
}

// BenchmarkApplyOne is the cost of one entry's change beside so many others, with
// 1,000 kinds of caller subscribed.
func BenchmarkApplyOne(b *testing.B) {
	sizes(b, func(b *testing.B, n int) {
		c, u := loaded(b, n)
		for i := range 1000 {
			defer c.Subscribe(service(i)).Close()
		}
		for i := 0; b.Loop(); i++ {
			e := u.Entries[i%n]
			e.Revision, e.Hint = int64(i), fmt.Sprint(i)
			c.Apply(upstream.Update{Entries: []registration.Entry{e}, Bundle: u.Bundle})
		}
	})
}

// BenchmarkApplyNew is the cost of an entry that comes and goes.
func BenchmarkApplyNew(b *testing.B) {
	sizes(b, func(b *testing.B, n int) {
		c, u := loaded(b, n)
		for i := range 1000 {
			defer c.Subscribe(service(i)).Close()
		}
		e := u.Entries[n/2]
		e.ID = "new"
		for b.Loop() {
			c.Apply(upstream.Update{Entries: []registration.Entry{e}, Bundle: u.Bundle})
			c.Apply(upstream.Update{Removed: []string{e.ID}, Bundle: u.Bundle})
		}
	})
}

// BenchmarkApplyWhole is the cost of being told everything again.
func BenchmarkApplyWhole(b *testing.B) {
	sizes(b, func(b *testing.B, n int) {
		c, u := loaded(b, n)
		b.ReportAllocs()
		for b.Loop() {
			c.Apply(u)
		}
	})
}

// BenchmarkFirstSVID is how long a new workload waits for its SVID beside so many
// entries: its key and two signatures, and what the cache adds.
func BenchmarkFirstSVID(b *testing.B) {
	sizes(b, func(b *testing.B, n int) {
		c, _ := loaded(b, n)
		ctx, cancel := context.WithCancel(b.Context())
		var running sync.WaitGroup
		running.Go(func() { c.Run(ctx) })
		defer running.Wait()
		defer cancel()
		for i := 0; b.Loop(); i++ {
			sub := c.Subscribe(service(1 + i%(n-1)))
			if _, err := sub.Answer(ctx); err != nil {
				b.Fatal(err)
			}
			sub.Close()
		}
	})
}

// BenchmarkEntryMemory tells what an entry costs, and an SVID.
func BenchmarkEntryMemory(b *testing.B) {
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	const n = 10_000
	for b.Loop() {
		before := heap()
		c, u := loaded(b, n)
		u.Entries = nil
		b.ReportMetric(float64(heap()-before)/n, "B/entry")
		before = heap()
		ctx, cancel := context.WithCancel(b.Context())
		c.mu.Lock()
		c.cfg.MaxSize = 1000
		c.prefetch()
		c.mu.Unlock()
		var running sync.WaitGroup
		running.Go(func() { c.Run(ctx) })
		for c.Stats().SVIDs < 1000 {
			runtime.Gosched()
		}
		cancel()
		running.Wait()
		b.ReportMetric(float64(heap()-before)/1000, "B/SVID")
		runtime.KeepAlive(c)
	}
}

// BenchmarkFetch is a caller that comes, is given what there is, and goes: alone,
// so that nothing is there from another of its kind.
func BenchmarkFetch(b *testing.B) {
	c, _ := loaded(b, 10_000)
	ctx, cancel := context.WithCancel(b.Context())
	var running sync.WaitGroup
	running.Go(func() { c.Run(ctx) })
	defer running.Wait()
	defer cancel()
	who := service(0)
	for i := range 20 {
		who.Selectors = append(who.Selectors, registration.Selector{Type: "docker", Value: fmt.Sprint("label:some.key:", i)})
	}
	who = who.normal()
	fetch := func() {
		sub := c.Subscribe(who)
		defer sub.Close()
		a, err := sub.Answer(ctx)
		if err == nil {
			_, err = a.X509SVIDResponse()
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	fetch()
	b.ReportAllocs()
	for b.Loop() {
		fetch()
	}
}

// BenchmarkStreamMemory tells what a stream costs here: one of a kind, and one
// more of a kind.
func BenchmarkStreamMemory(b *testing.B) {
	const n = 1000
	for b.Loop() {
		c, _ := loaded(b, 10)
		measure := func(name string, who func(i int) Caller) {
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			subs := make([]*Subscription, n)
			for i := range subs {
				subs[i] = c.SubscribeBundles(who(i))
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(int64(after.HeapAlloc)-int64(before.HeapAlloc))/n, name)
			runtime.KeepAlive(subs)
		}
		measure("B/stream", func(int) Caller { return service(1) })
		measure("B/kind", func(i int) Caller {
			who := service(2)
			for j := range 20 {
				who.Selectors = append(who.Selectors, registration.Selector{Type: "docker", Value: fmt.Sprintf("label:some.key.%d:%d", j, i)})
			}
			return who
		})
	}
}
