package workloadapi

import (
	"context"
	"hash/maphash"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	workloadpb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadapi/follow"
)

// limitedMethods are the methods that have a rate limit, by its name in
// experimental.ratelimit. Envoy's delta streams count as its others do.
func limitedMethods(name string) []string {
	const sds = "/envoy.service.secret.v3.SecretDiscoveryService/"
	switch name {
	case "fetch_x509_svid":
		return []string{workloadpb.SpiffeWorkloadAPI_FetchX509SVID_FullMethodName}
	case "fetch_jwt_svid":
		return []string{workloadpb.SpiffeWorkloadAPI_FetchJWTSVID_FullMethodName}
	case "fetch_x509_bundles":
		return []string{workloadpb.SpiffeWorkloadAPI_FetchX509Bundles_FullMethodName}
	case "fetch_jwt_bundles":
		return []string{workloadpb.SpiffeWorkloadAPI_FetchJWTBundles_FullMethodName}
	case "stream_secrets":
		return []string{sds + "StreamSecrets", sds + "DeltaSecrets"}
	case "fetch_secrets":
		return []string{sds + "FetchSecrets"}
	}
	return nil
}

// limits are the buckets of the methods that have a limit. Methods that share
// one share its buckets.
type limits map[string]*buckets

func newLimits(rates map[string]int, log *slog.Logger) limits {
	l := make(limits)
	for _, name := range slices.Sorted(maps.Keys(rates)) {
		if rates[name] <= 0 {
			continue
		}
		b := newBuckets(rates[name])
		for _, method := range limitedMethods(name) {
			l[method] = b
			log.Info("calls are limited", "method", method, "per_second", rates[name])
		}
	}
	return l
}

func (l limits) has(method string) bool { return l[method] != nil }

// limit returns the status of a call too many, SPIRE's. The agent's own calls,
// such as a health check's, are not counted.
func (s *Service) limit(ctx context.Context, method string, who follow.Standing) error {
	b := s.limits[method]
	if b == nil || isSelf(ctx) {
		return nil
	}
	if b.take(b.key(who.Result().Selectors), time.Now()) {
		return nil
	}
	s.log.Debug("calls are limited: refused", "method", method)
	return status.Errorf(codes.Unavailable, "rate limit exceeded for %s", method)
}

// maxBuckets bounds what is remembered, twice over: a user can start programs of
// as many kinds as it likes. Those beyond share a bucket.
const maxBuckets = 10_000

// buckets are token buckets, one for callers with the same selectors, each of
// which fills up within a second.
type buckets struct {
	perToken time.Duration
	seed     maphash.Seed
	start    time.Time

	mu sync.Mutex // guards what follows
	// full is when a bucket is full again, as time since start. One that is full
	// is as good as none, so that a generation older than a second can go.
	young, old map[uint64]time.Duration
	turned     time.Duration // when young was made
	crowd      time.Duration // of the bucket of all who find no room
}

func newBuckets(perSecond int) *buckets {
	return &buckets{perToken: time.Second / time.Duration(perSecond), seed: maphash.MakeSeed(), start: time.Now(), young: map[uint64]time.Duration{}}
}

// key is of a set of selectors; two sets that share one, a chance of 1 to 2^64,
// share a bucket.
func (b *buckets) key(sorted []registration.Selector) uint64 {
	var h maphash.Hash
	h.SetSeed(b.seed)
	for _, s := range sorted {
		h.WriteString(s.Type)
		h.WriteByte(0)
		h.WriteString(s.Value)
		h.WriteByte(0)
	}
	return h.Sum64()
}

// take takes a token, and reports whether there was one.
func (b *buckets) take(key uint64, at time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := at.Sub(b.start)
	if now-b.turned > time.Second {
		b.young, b.old, b.turned = map[uint64]time.Duration{}, b.young, now
	}
	full, known := b.young[key]
	if !known {
		full, known = b.old[key]
		delete(b.old, key)
	}
	crowded := !known && len(b.young) >= maxBuckets
	if crowded {
		full = b.crowd
	}
	full = max(full, now) + b.perToken
	enough := full-now <= time.Second
	if !enough {
		full -= b.perToken
	}
	if crowded {
		b.crowd = full
	} else {
		b.young[key] = full
	}
	return enough
}
