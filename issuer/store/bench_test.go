package store_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

func BenchmarkCreateEntries(b *testing.B) {
	for _, size := range []int{1, 100, 1000, 10_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s := open(b, b.TempDir())
			entries := make([]registration.Entry, size)
			n := 0
			for b.Loop() {
				for i := range entries {
					entries[i] = entry(fmt.Sprintf("w%d", n))
					n++
				}
				create(b, s, entries...)
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "entries/s")
		})
	}
}

func BenchmarkCreateEntriesConcurrently(b *testing.B) {
	s := open(b, b.TempDir())
	var n atomic.Int64
	b.SetParallelism(4)
	b.RunParallel(func(pb *testing.PB) {
		entries := make([]registration.Entry, 1000)
		for pb.Next() {
			for i := range entries {
				entries[i] = entry(fmt.Sprintf("w%d", n.Add(1)))
			}
			create(b, s, entries...)
		}
	})
	b.ReportMetric(float64(n.Load())/b.Elapsed().Seconds(), "entries/s")
}
