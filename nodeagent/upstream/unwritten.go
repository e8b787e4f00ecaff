package upstream

import "time"

// save writes what is in use; id.mu is held. What cannot be written is used
// nevertheless.
func (id *identity) save() error {
	err := id.files.write(id.data, id.keys)
	id.tell(err)
	return err
}

// settle writes what is in use, if it isn't on disk, and reports whether it is now.
func (id *identity) settle() bool {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.files.hold(id.data, id.keys) || id.save() == nil
}

// settled reports whether all is on disk that is to be there.
func (id *identity) settled() bool {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.files.hold(id.data, id.keys)
}

// canWait reports whether a renewal that cannot be written may be tried again later:
// the next run would find the SVID in use, which lives on for a while. One that hangs
// from a tainted authority may be refused at any time. id.mu is held.
func (id *identity) canWait(now time.Time) bool {
	if id.opt.memory || id.svid == nil || !id.files.holdSVID(id.svid) || hangsFrom(id.svid.Certificates, id.tainted) {
		return false
	}
	leaf := id.svid.Certificates[0]
	return leaf.NotAfter.Sub(now) > max(leaf.NotAfter.Sub(leaf.NotBefore)/4, 3*id.opt.spread)
}

// tell says once that the SVID in use is not on disk, because of err, and once that
// it is again. id.mu is held.
func (id *identity) tell(err error) {
	if id.opt.memory || id.svid == nil {
		return
	}
	leaf := id.svid.Certificates[0]
	switch lost := err != nil && !id.files.holdSVID(id.svid); {
	case lost && !id.homeless:
		id.homeless = true
		id.opt.log.Error("the agent's own SVID or its key cannot be written: it is used, and would be missing after a restart, so that the agent would have to join anew: make space in data_dir, or make it writable",
			"data_dir", id.files.dir, "reason", err, "expires", leaf.NotAfter)
	case err == nil && id.homeless:
		id.homeless = false
		id.opt.log.Info("the agent's own SVID and its key are on disk again", "data_dir", id.files.dir, "expires", leaf.NotAfter)
	}
}
