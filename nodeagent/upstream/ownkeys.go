package upstream

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"maps"
)

// joinKey returns the key to join with. Once made it is on disk, and stays the
// same until the agent has joined: an issuer that spent the token and whose
// answer was lost knows the agent again by it.
func (id *identity) joinKey() (crypto.Signer, error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.svid != nil {
		return id.svid.PrivateKey, nil
	}
	for _, slot := range []string{slotA, slotB} {
		if key := id.keys[slot]; key != nil {
			return key, nil
		}
	}
	return id.newKey(slotA)
}

// renewalKey returns a new key, on disk, for the SVID after the one in use; the
// same until [identity.setSVID], for an answer may be lost here too.
func (id *identity) renewalKey() (crypto.Signer, error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.pending != "" {
		return id.keys[id.pending], nil
	}
	// The new key takes the slot of the one before the last, if that is still
	// there: no going back to it any more.
	id.previous = nil
	slot := slotA
	if id.keys.slotOf(id.svid.Certificates[0].PublicKey) == slotA {
		slot = slotB
	}
	key, err := id.newKey(slot)
	if err == nil {
		id.pending = slot
	}
	return key, err
}

// newKey makes a P-256 key and writes it to disk; id.mu is held.
func (id *identity) newKey(slot string) (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	next := maps.Clone(id.keys)
	next[slot] = key
	if err := id.saveKeys(next); err != nil {
		return nil, err
	}
	id.keys = next
	return key, nil
}

// saveKeys writes the keys; id.mu is held.
func (id *identity) saveKeys(ks keys) error {
	if id.opt.memory {
		return nil
	}
	return save(id.dir, keysFile, ks)
}

// saveData writes the rest; id.mu is held. An SVID whose key is in memory alone
// would be of no use to the next run.
func (id *identity) saveData(d data) error {
	if id.opt.memory {
		d.SVID, d.Reattestable = nil, false
	}
	return save(id.dir, dataFile, d)
}
