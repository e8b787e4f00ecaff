package policy

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"testing"
)

func BenchmarkDecide(b *testing.B) {
	cert := leaf(b, x509.Certificate{Subject: pkix.Name{CommonName: "web"}, URIs: uris(b, web.String())})
	for _, n := range []int{1, 200} {
		// The last one matches.
		var exact, wild []string
		for i := range n - 1 {
			exact = append(exact, fmt.Sprintf("spiffe://one.test/ns/prod/sa/web-%d", i))
			wild = append(wild, fmt.Sprintf("spiffe://one.test/ns/*/sa/web-%d", i))
		}
		exact, wild = append(exact, web.String()), append(wild, "spiffe://one.test/ns/*/sa/web")
		for name, patterns := range map[string][]string{"exact": exact, "wild": wild} {
			p := compiled(b, Config{AllowURIs: patterns})
			b.Run(fmt.Sprintf("%s-%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if !p.Decide(b.Context(), Request{Own: db, Peer: web, Certificate: cert}).Allowed {
						b.Fatal("refused")
					}
				}
			})
			b.Run(fmt.Sprintf("%s-%d-refused", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if p.Decide(b.Context(), Request{Own: web, Peer: db, Certificate: cert}).Allowed {
						b.Fatal("allowed")
					}
				}
			})
		}
	}
}
