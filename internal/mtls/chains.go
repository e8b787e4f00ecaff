package mtls

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// chainsPerGeneration bounds a [Chains]: it holds at most twice as many.
const chainsPerGeneration = 512

// Chains remembers the certificate chains that verified against one version of what is trusted, so that the next
// connection with the same chain costs a hash instead of its signatures. Only what verified is remembered, until the
// first certificate of its chain runs out; whatever else peers send costs no memory. It must be dropped when what is
// trusted changes. The zero value is empty and usable; nil remembers nothing. It is safe for concurrent use.
type Chains struct {
	mu       sync.Mutex // held for moments; guards both maps
	young    map[chainKey]*verified
	old      map[chainKey]*verified // the generation before: what is not asked for again goes with it
	lookups  uint64
	verified uint64
}

type chainKey [sha256.Size]byte

// verified is a chain that was good, and from when until when it is.
type verified struct {
	id spiffeid.ID // zero of what is no X.509-SVID
	// path is the leaf and those who signed it. What else was presented is not held: a peer that is good could present as
	// much as it likes, and something else each time.
	path        []*x509.Certificate
	from, until time.Time
}

// key is what a chain is remembered under: what it was verified for, and all its bytes.
func key(purpose string, certs []*x509.Certificate) (k chainKey) {
	h := sha256.New()
	var size [4]byte
	part := func(b []byte) {
		binary.BigEndian.PutUint32(size[:], uint32(len(b)))
		h.Write(size[:])
		h.Write(b)
	}
	part([]byte(purpose))
	for _, c := range certs {
		part(c.Raw)
	}
	h.Sum(k[:0])
	return k
}

// question is whether a chain is good.
type question struct {
	purpose string
	certs   []*x509.Certificate
	now     time.Time
	intern  bool // certs may be replaced by equal ones
}

// verify returns what is remembered of a chain, or has check verify it. check returns the chains from the leaf to a root.
func (c *Chains) verify(q question, check func() (spiffeid.ID, [][]*x509.Certificate, error)) (spiffeid.ID, error) {
	if c == nil {
		id, _, err := check()
		return id, err
	}
	k := key(q.purpose, q.certs)
	if v := c.find(k, q.now); v != nil {
		if q.intern {
			v.replace(q.certs)
		}
		return v.id, nil
	}
	id, paths, err := check()
	if err != nil {
		return id, err
	}
	v := &verified{id: id}
	for _, path := range paths {
		if from, until := validity(path); until.After(v.until) {
			v.path, v.from, v.until = path, from, until
		}
	}
	c.remember(k, v)
	return id, nil
}

// replace puts those of the path in place of equal ones in certs.
func (v *verified) replace(certs []*x509.Certificate) {
	for i, presented := range certs {
		for _, known := range v.path {
			if presented.Equal(known) {
				certs[i] = known
				break
			}
		}
	}
}

func (c *Chains) find(k chainKey, now time.Time) *verified {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lookups++
	v, young := c.young[k]
	if !young {
		v = c.old[k]
	}
	switch {
	case v == nil:
		return nil
	case now.Before(v.from) || now.After(v.until):
		delete(c.young, k)
		delete(c.old, k)
		return nil
	case !young:
		c.put(k, v)
	}
	return v
}

func (c *Chains) remember(k chainKey, v *verified) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.verified++
	c.put(k, v)
}

// put must be called with mu held.
func (c *Chains) put(k chainKey, v *verified) {
	if c.young == nil || len(c.young) >= chainsPerGeneration {
		c.young, c.old = make(map[chainKey]*verified), c.young
	}
	c.young[k] = v
}

// Forget gives back what is remembered. Who replaces what is trusted calls it, as connections that live on hold the
// configuration they were made with, and the Chains in it.
func (c *Chains) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.young, c.old = nil, nil
}

// Stats tells how often a chain was asked for and how many of these had to be verified, and were good.
func (c *Chains) Stats() (lookups, verified uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lookups, c.verified
}

// validity is when all certificates of a chain are valid.
func validity(path []*x509.Certificate) (from, until time.Time) {
	for i, cert := range path {
		if i == 0 || cert.NotBefore.After(from) {
			from = cert.NotBefore
		}
		if i == 0 || cert.NotAfter.Before(until) {
			until = cert.NotAfter
		}
	}
	return from, until
}
