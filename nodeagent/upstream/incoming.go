package upstream

import (
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/changesv1"
)

// maxResume is the longest token that the protocol allows, in bytes.
const maxResume = 256

// incoming is what has come of a change that is not complete.
type incoming struct {
	change
	bundles map[spiffeid.TrustDomain]bundle // empty ones are gone
	reset   bool
	size    int       // of what came, in bytes
	since   time.Time // when its first part came
	// first says that it is the first of its stream.
	first bool
}

// newIncoming begins the first change of a stream. One that was not asked to
// resume tells all there is, whatever it says.
func newIncoming(all bool) incoming {
	return incoming{change: newChange(), bundles: make(map[spiffeid.TrustDomain]bundle), reset: all, first: true}
}

func (in *incoming) begun() bool { return !in.since.IsZero() }

// empty reports whether nothing changes: it is a sign of life.
func (in *incoming) empty() bool {
	return !in.reset && len(in.entries)+len(in.removed)+len(in.bundles) == 0
}

// take takes one response, and hands on what is complete.
func (w *watcher) take(s *stream, resp *changesv1.WatchResponse) error {
	in := &w.incoming
	if !in.begun() {
		in.since = time.Now()
	} else if resp.Reset_ {
		// What came before is of no account.
		size, since := in.size, in.since
		*in = newIncoming(true)
		in.size, in.since = size, since
	}
	in.reset = in.reset || resp.Reset_
	if in.size += proto.Size(resp); in.size > w.c.limits.changeSize {
		return broken("a change of more than %d bytes", w.c.limits.changeSize)
	}
	w.takeEntries(in, resp)
	w.takeBundles(in, resp)
	if !resp.Complete {
		return nil
	}
	w.complete(s, in, resp.Resume)
	w.incoming = newIncoming(false)
	w.incoming.first = false
	return nil
}

// takeEntries: an entry that can't be read, or is none of this trust domain, is
// left out; what was held of it before is outdated.
func (w *watcher) takeEntries(in *incoming, resp *changesv1.WatchResponse) {
	for _, p := range resp.Entries {
		if e, ok := w.reader.read(p); ok {
			in.put(e)
		} else if p.GetId() != "" {
			in.remove(p.GetId())
		}
	}
	for _, id := range resp.RemovedEntryIds {
		in.remove(id)
	}
}

// takeBundles: one that can't be read stays as it was.
func (w *watcher) takeBundles(in *incoming, resp *changesv1.WatchResponse) {
	for _, p := range resp.Bundles {
		b, err := readBundle(p, w.c.log)
		if err != nil {
			w.c.log.Error("bundle left out", "trust_domain", p.GetTrustDomain(), "reason", err)
			if td, err := spiffeid.TrustDomainFromString(p.GetTrustDomain()); err == nil && w.bundles.federated[td] != nil {
				in.bundles[td] = bundle{x509: w.bundles.federated[td], jwt: w.bundles.jwt[td]}
			}
			continue
		}
		in.bundles[b.x509.TrustDomain()] = b
	}
	for _, name := range resp.RemovedBundles {
		if td, err := spiffeid.TrustDomainFromString(name); err == nil && td != w.c.cfg.TrustDomain {
			in.bundles[td] = bundle{}
		}
	}
}

// complete hands on a change and keeps its token.
func (w *watcher) complete(s *stream, in *incoming, resume []byte) {
	if len(resume) > maxResume {
		w.c.log.Error("token of the issuer's left out: it is too long", "bytes", len(resume), "most", maxResume)
		resume = nil
	}
	if !in.empty() || len(resume) > 0 {
		w.resume, w.held, w.heldAnew = resume, s.svid.ID, w.c.anew.Load()
	}
	if in.empty() && !in.first {
		w.inSync(true)
		w.poster.tell()
		return
	}
	in.whole = in.reset
	w.entries.forget() // polls know no more what was handed on last
	keep := func(td spiffeid.TrustDomain) bool {
		_, named := in.bundles[td]
		return named || !in.reset
	}
	b := w.bundles.with(w.c.cfg.TrustDomain, in.bundles, keep)
	if b.own.x509 == nil { // it tells of none: that of joining
		_, held := w.c.id.current()
		b.own.x509 = held
		w.c.log.Error("the issuer tells of no bundle of its own trust domain: the one from before stays")
	}
	w.hand(in.change, b)
	w.inSync(true)
}
