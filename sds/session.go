package sds

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/workload"
)

// errStreamOver ends the watch of a stream that has ended or cannot be written.
var errStreamOver = errors.New("the stream has ended")

// session is what both kinds of stream have in common: what the source last
// said, what the client asked for and holds, and the nonces between the two.
// Requests and updates come from two goroutines; whichever has the lock
// answers, so that answers are written in the order they were worked out.
type session struct {
	svc *service
	log *slog.Logger
	// answer sends what the ledger says is due, if anything. Set once, by the
	// kind of stream; called with mu held.
	answer func() error

	mu      sync.Mutex
	over    bool
	current *workload.X509Context // nil until the source said something
	catalog *catalog              // of current, for node; nil as long
	node    node
	ledger  ledger
	sent    uint64 // responses so far; the last one's nonce
	acked   uint64 // highest nonce answered by the client
	started bool   // the first request was accepted
	trouble string // what was last logged about the source
	waiting string // what was last logged as not there yet
	odd     bool   // names that can never come were logged
}

func (s *service) newSession(method string) *session {
	return &session{svc: s, log: s.opts.Log.With("method", method), ledger: newLedger()}
}

// update takes the source's next context and answers what it changes.
func (ses *session) update(c *workload.X509Context) error {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	if ses.over {
		return errStreamOver
	}
	if ses.trouble != "" {
		ses.log.Info("identities are available again", "node", ses.node.id)
		ses.trouble = ""
	}
	ses.show(c)
	return ses.respond()
}

// lost records that the source gave up. Without an identity nothing may be
// held any longer; otherwise what was sent stays good.
func (ses *session) lost(err error, denied bool) error {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	if ses.over {
		return errStreamOver
	}
	if err == nil {
		err = errors.New("the watch ended")
	}
	if text := err.Error(); text != ses.trouble {
		ses.trouble = text
		ses.log.Warn("no identities from the source; the stream stays open and it is asked again",
			"node", ses.node.id, "waiting_for", abbreviateAll(ses.ledger.unsent()), "error", text)
	}
	if !denied {
		return nil
	}
	ses.show(&workload.X509Context{})
	return ses.respond()
}

// show makes c what is answered from. The catalog is shared with the other
// streams that show the same context.
func (ses *session) show(c *workload.X509Context) {
	next := ses.svc.catalogs.acquire(c, ses.node.plain(ses.svc.opts.DisableSPIFFECertValidation))
	ses.svc.catalogs.release(ses.catalog)
	ses.current, ses.catalog = c, next
}

// identify takes what the client says about itself. Envoy says it only in the
// first request of a stream.
func (ses *session) identify(n node) {
	ses.node = n
	if ses.current != nil {
		ses.show(ses.current)
	}
}

// respond answers what is due, if anything. Nothing is before the source has
// said what there is: a name must not be taken for gone because of a restart.
func (ses *session) respond() error {
	if ses.catalog == nil || !ses.started {
		return nil
	}
	if err := ses.answer(); err != nil {
		ses.over = true
		return fmt.Errorf("%w: %w", errStreamOver, err)
	}
	ses.logWaiting()
	return nil
}

// logWaiting tells what the client is left waiting for, at each change. A
// listener that does not come up has its reason here.
func (ses *session) logWaiting() {
	names := ses.ledger.unsent()
	waiting := strings.Join(names, " ")
	if waiting == ses.waiting {
		return
	}
	ses.waiting = waiting
	if len(names) > 0 {
		ses.log.Info("the client waits for secrets that are not there yet", "node", ses.node.id, "names", abbreviateAll(names))
	}
}

// due returns what has to be sent now. An SVID that has expired is never handed
// out; one that expires in Envoy's hands stays there, where peers refuse it.
func (ses *session) due() (changed []*resource, gone []string) {
	return ses.ledger.due(ses.catalog, time.Now())
}

func (ses *session) nextNonce() string {
	ses.sent++
	return ses.lastNonce()
}

func (ses *session) lastNonce() string { return strconv.FormatUint(ses.sent, 10) }

// acknowledge notes the client's answer to the response with that nonce, once,
// and logs a rejection with the client's reason. Nothing is sent again for it:
// the same bytes would be rejected again, and other ones are due anyway.
func (ses *session) acknowledge(nonce string, reason *rejection) {
	n, err := strconv.ParseUint(nonce, 10, 64)
	if err != nil || n <= ses.acked || n > ses.sent {
		ses.log.Debug("ignoring a stale nonce", "node", ses.node.id, "nonce", abbreviate(nonce), "expected", ses.sent)
		return
	}
	ses.acked = n
	if reason == nil {
		ses.log.Debug("secrets accepted", "node", ses.node.id, "nonce", n)
		return
	}
	ses.log.Error("the client rejected secrets and keeps the ones it had", "node", ses.node.id, "nonce", n,
		"names", abbreviateAll(ses.ledger.names()), "code", reason.code, "error", reason.message)
}

// begin notes the first request that was accepted.
func (ses *session) begin() {
	if !ses.started {
		ses.started = true
		ses.log.Info("a client asks for secrets", "node", ses.node.id, "names", abbreviateAll(ses.ledger.names()), "wildcard", ses.ledger.all)
	}
}

// warnOdd warns, once a stream, of subscribed names that no secret can have.
func (ses *session) warnOdd(names []string) {
	if ses.odd {
		return
	}
	var odd []string
	for _, name := range names {
		if !ses.svc.opts.possible(name) {
			odd = append(odd, name)
		}
	}
	if len(odd) == 0 {
		return
	}
	ses.odd = true
	o := ses.svc.opts
	ses.log.Warn("the client waits for names that no secret has", "node", ses.node.id, "names", abbreviateAll(odd),
		"accepted", []string{o.SVIDName, o.BundleName, o.AllBundlesName, "spiffe://<trust domain>", "spiffe://<trust domain>/<path>"})
}

// close makes every later update fail with errStreamOver and lets go of the
// keys it shared.
func (ses *session) close() {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	ses.over = true
	ses.svc.catalogs.release(ses.catalog)
	ses.catalog = nil
}
