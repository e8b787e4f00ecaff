package upstream

import (
	"crypto/x509"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/lanyard-mtls/lanyard/internal/durable"
)

// slotKept is that of the key of the SVID on disk while newer keys are written that
// it is not one of.
const slotKept = "agent-svid-kept"

// files are the state files as they are on disk. At each moment they are a state to
// start from: an SVID there has its key there. It is not safe for concurrent use.
type files struct {
	dir    string
	memory bool // keys and SVID stay off the disk

	data data
	keys keys
	// unsure says that a write has failed: a file may hold what it was to hold.
	unsure bool
}

// openFiles reads the files in dir, and removes what an agent that was killed left
// of writing them.
func openFiles(dir string, memory bool) (*files, error) {
	for _, name := range []string{dataFile, keysFile} {
		if err := durable.Sweep(filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	f := &files{dir: dir, memory: memory}
	var err error
	if f.data, err = load(dir, dataFile, decodeData); err != nil || memory {
		return f, err
	}
	f.keys, err = load(dir, keysFile, decodeKeys)
	return f, err
}

// reread finds out what the files hold. One that is damaged counts as empty: it is
// about to be written.
func (f *files) reread() error {
	var unreadable *fs.PathError
	d, err := load(f.dir, dataFile, decodeData)
	if errors.As(err, &unreadable) {
		return err
	}
	ks, err := load(f.dir, keysFile, decodeKeys)
	if errors.As(err, &unreadable) {
		return err
	}
	f.data, f.keys, f.unsure = d, ks, false
	return nil
}

// hold reports whether the files hold this and nothing else.
func (f *files) hold(d data, ks keys) bool {
	if f.memory {
		return !f.unsure && f.data.equal(d.withoutSVID())
	}
	return !f.unsure && f.data.equal(d) && len(f.keys) == len(ks) && f.keys.include(ks)
}

// holdSVID reports whether the next run would find svid.
func (f *files) holdSVID(svid *x509svid.SVID) bool {
	if f.unsure {
		_ = f.reread() // else it is as it was when it could be read
	}
	return slices.EqualFunc(f.data.SVID, svid.Certificates, (*x509.Certificate).Equal)
}

// holdBundle reports whether the next run would find these authorities.
func (f *files) holdBundle(certs []*x509.Certificate) bool {
	if f.unsure {
		_ = f.reread()
	}
	return slices.EqualFunc(f.data.Bundle, certs, (*x509.Certificate).Equal)
}

// write has the files hold d and ks. On an error they hold what they did, or a part
// of that which is a state to start from.
func (f *files) write(d data, ks keys) error {
	if f.unsure {
		if err := f.reread(); err != nil {
			return err
		}
	}
	if f.memory {
		// An SVID whose key is in memory alone is of no use to the next run.
		return f.writeData(d.withoutSVID())
	}
	if !f.keys.include(ks) {
		if err := f.writeKeys(f.withKept(ks)); err != nil {
			// The bundle does not have to wait for the keys.
			_ = f.writeData(data{SVID: f.data.SVID, Reattestable: f.data.Reattestable, Bundle: d.Bundle, rest: d.rest})
			return err
		}
	}
	if err := f.writeData(d); err != nil {
		return err
	}
	return f.writeKeys(ks)
}

// withKept adds the key of the SVID on disk, unless that is one of ks.
func (f *files) withKept(ks keys) keys {
	if len(f.data.SVID) == 0 || ks.slotOf(f.data.SVID[0].PublicKey) != "" {
		return ks
	}
	slot := f.keys.slotOf(f.data.SVID[0].PublicKey)
	if slot == "" {
		return ks
	}
	both := maps.Clone(ks)
	both[slotKept] = f.keys[slot]
	return both
}

func (f *files) writeData(d data) error {
	if f.data.equal(d) {
		return nil
	}
	if err := save(f.dir, dataFile, d); err != nil {
		f.unsure = true
		return err
	}
	f.data = d
	return nil
}

func (f *files) writeKeys(ks keys) error {
	if len(f.keys) == len(ks) && f.keys.include(ks) {
		return nil
	}
	if err := save(f.dir, keysFile, ks); err != nil {
		f.unsure = true
		return err
	}
	f.keys = ks
	return nil
}

// forget has the files hold neither SVID nor key: where they cannot be written, they
// are removed, which a full disk allows. Of d, which has no SVID, it writes what it
// can.
func (f *files) forget(d data) error {
	err := f.write(d, keys{})
	if err == nil || f.memory {
		return nil
	}
	// The SVID goes before its key.
	var errs []error
	if f.reread() != nil || len(f.data.SVID) > 0 {
		errs = append(errs, f.remove(dataFile))
	}
	if err := errors.Join(append(errs, f.remove(keysFile))...); err != nil {
		return err
	}
	// That may have made space enough for the bundle.
	f.unsure = true
	_ = f.write(d, keys{})
	return nil
}

func (f *files) remove(name string) error {
	if err := os.Remove(filepath.Join(f.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return durable.SyncDir(f.dir)
}

func (d data) withoutSVID() data {
	d.SVID, d.Reattestable = nil, false
	return d
}

func (d data) equal(other data) bool {
	return slices.EqualFunc(d.SVID, other.SVID, (*x509.Certificate).Equal) &&
		slices.EqualFunc(d.Bundle, other.Bundle, (*x509.Certificate).Equal) &&
		d.Reattestable == other.Reattestable && d.rest == other.rest
}

// include reports whether all of others are there, in the same slots.
func (ks keys) include(others keys) bool {
	for slot, key := range others {
		if held := ks[slot]; held == nil || !samePublicKey(held.Public(), key.Public()) {
			return false
		}
	}
	return true
}
