package upstream

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"maps"
	"time"
)

// joinKey returns the key to join with. Once made it is on disk, and stays the
// same until the agent has joined: an issuer that spent the token and whose
// answer was lost knows the agent again by it. If it cannot be written, that is an
// error, unless the agent could attest again at any time.
func (id *identity) joinKey(again bool) (crypto.Signer, error) {
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
	next, err := id.withNewKey(slotA)
	if err != nil {
		return nil, err
	}
	if err := id.files.write(id.data, next); err != nil && !again {
		return nil, err
	}
	id.keys = next
	return next[slotA], nil
}

// renewalKey returns a new key for the SVID after the one in use; the same until
// that is there, for an answer may be lost here too. It is on disk, or there is no
// more time to wait for that, as mayWait or the SVID in use has it.
func (id *identity) renewalKey(mayWait bool, now time.Time) (crypto.Signer, error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	slot, next := id.pending, id.keys
	if slot == "" {
		// The new key takes the slot of the one before the last, if that is still
		// there: no going back to it any more.
		slot = slotA
		if id.keys.slotOf(id.svid.Certificates[0].PublicKey) == slotA {
			slot = slotB
		}
		var err error
		if next, err = id.withNewKey(slot); err != nil {
			return nil, err
		}
	}
	if err := id.files.write(id.data, next); err != nil && mayWait && id.canWait(now) {
		return nil, err
	}
	id.keys, id.pending, id.previous = next, slot, nil
	return next[slot], nil
}

// withNewKey returns the keys with a new one, P-256, in the slot; id.mu is held.
func (id *identity) withNewKey(slot string) (keys, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	next := maps.Clone(id.keys)
	next[slot] = key
	return next, nil
}
