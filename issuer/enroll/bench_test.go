package enroll_test

import (
	"testing"

	"github.com/lanyard-mtls/lanyard/issuer/enroll"
)

// BenchmarkAttest is one join, without the RPC; the agent's own two signatures of
// join_key are in it.
func BenchmarkAttest(b *testing.B) {
	b.Run("join_token", func(b *testing.B) {
		r := newRig(b)
		for b.Loop() {
			b.StopTimer()
			a := attempt(b, r.token(enroll.TokenRequest{Method: "join_token"}).Token)
			b.StartTimer()
			if _, err := r.Attest(b.Context(), a); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("join_key", func(b *testing.B) {
		r := newRig(b)
		token := r.token(enroll.TokenRequest{MaxUses: 1 << 30}).Token
		for b.Loop() {
			b.StopTimer()
			a := r.node().attempt(token)
			b.StartTimer()
			if _, err := r.Attest(b.Context(), a); err != nil {
				b.Fatal(err)
			}
		}
	})
}
