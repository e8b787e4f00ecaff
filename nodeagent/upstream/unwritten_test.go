package upstream

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-mtls/lanyard/internal/testca"
)

// onDisk is an identity on a disk of its own, at a time that the test says.
type onDisk struct {
	*identity
	*Disk
	t   *testing.T
	ca  *testca.CA
	now time.Time
	log bytes.Buffer
}

// newOnDisk has joined, with an SVID for an hour.
func newOnDisk(t *testing.T, opt identityOptions) *onDisk {
	t.Helper()
	o := &onDisk{Disk: NewDisk(t), t: t, ca: testca.New(t, "example.org"), now: time.Now()}
	opt.log = logInto(&o.log)
	var err error
	if o.identity, err = openIdentity(o.Dir, o.ca.TrustDomain, opt); err != nil {
		t.Fatal(err)
	}
	key, err := o.joinKey(false)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(o.setSVID(o.sign(key), false, o.now), o.setBundle([]*x509.Certificate{o.ca.Cert}, nil, o.now)); err != nil {
		t.Fatal(err)
	}
	return o
}

func logInto(b *bytes.Buffer) *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

func (o *onDisk) sign(key crypto.Signer) []*x509.Certificate {
	return []*x509.Certificate{o.ca.Sign(o.t, "spiffe://example.org/spire/agent/a", key.Public(), testca.Lifetime(o.now, o.now.Add(time.Hour)))}
}

// renew renews the SVID, which the issuer takes.
func (o *onDisk) renew() error {
	key, err := o.renewalKey(true, o.now)
	if err != nil {
		return err
	}
	if err := o.renewSVID(o.sign(key), o.now); err != nil {
		return err
	}
	return o.confirm(o.svid)
}

// finds wants the next run to find the SVID of the chain with its key.
func (o *onDisk) finds(chain []*x509.Certificate) {
	o.t.Helper()
	next, err := openIdentity(o.Dir, o.ca.TrustDomain, identityOptions{})
	switch {
	case err != nil:
		o.t.Errorf("the next run cannot start: %v", err)
	case len(chain) == 0 && next.svid != nil:
		o.t.Errorf("the next run finds %s", next.svid.ID)
	case len(chain) > 0 && (next.svid == nil || !next.svid.Certificates[0].Equal(chain[0])):
		o.t.Error("the next run finds another SVID, or none")
	case next.bundle == nil:
		o.t.Error("the next run finds no bundle")
	}
}

// said counts the records of a level.
func (o *onDisk) said(level string, want int) {
	o.t.Helper()
	if got := strings.Count(o.log.String(), "level="+level); got != want {
		o.t.Errorf("said %s %d times, want %d:\n%s", level, got, want, o.log.String())
	}
}

func TestRenewsInMemoryOnAFullDisk(t *testing.T) {
	o := newOnDisk(t, identityOptions{spread: 5 * time.Second})
	first := o.svid
	o.Fill()
	o.now = o.now.Add(44 * time.Minute)
	if err := o.renew(); !errors.Is(err, unix.ENOSPC) || o.svid != first {
		t.Errorf("with time left, a renewal that cannot be written: %v", err)
	}
	o.said("ERROR", 0)
	o.now = o.now.Add(2 * time.Minute)
	for range 4 { // the first takes the last chance, and the others have nothing to lose
		before := o.svid
		if err := o.renew(); err != nil || o.svid == before {
			t.Fatalf("not renewed: %v", err)
		}
		o.finds(first.Certificates)
		o.now = o.now.Add(time.Minute)
	}
	o.said("ERROR", 1)
	o.said("WARN", 0)
	if o.settle() || o.settled() {
		t.Error("written to a full disk")
	}
	o.Free()
	o.said("INFO", 0)
	if !o.settle() || !o.settled() {
		t.Error("not written, with space")
	}
	o.said("INFO", 1)
	o.finds(o.svid.Certificates)
	if ks, err := load(o.Dir, keysFile, decodeKeys); err != nil || len(ks) != 1 {
		t.Errorf("%d keys on disk, %v; want the one in use", len(ks), err)
	}
	before := o.svid
	if err := o.renew(); err != nil || o.svid == before {
		t.Errorf("not renewed: %v", err)
	}
	o.finds(o.svid.Certificates)
	o.said("ERROR", 1)
	if left, err := filepath.Glob(filepath.Join(o.Dir, ".*")); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// An agent that is killed while it writes what it had in memory finds an SVID with
// its key, whichever files were written by then.
func TestKilledWhileItWritesAfterAFullDisk(t *testing.T) {
	o := newOnDisk(t, identityOptions{})
	first := o.svid
	o.Fill()
	o.now = o.now.Add(50 * time.Minute)
	for range 2 { // so that both slots have other keys
		if err := o.renew(); err != nil {
			t.Fatal(err)
		}
	}
	o.Free()
	if err := o.files.reread(); err != nil {
		t.Fatal(err)
	}
	if err := o.files.writeKeys(o.files.withKept(o.keys)); err != nil {
		t.Fatal(err)
	}
	o.finds(first.Certificates)
	if err := o.files.writeData(o.data); err != nil {
		t.Fatal(err)
	}
	o.finds(o.svid.Certificates)
}

func TestWhatCannotWaitForADisk(t *testing.T) {
	for name, test := range map[string]struct {
		opt   identityOptions
		after time.Duration
		do    func(*onDisk)
		fails bool
	}{
		"time left":        {identityOptions{}, 40 * time.Minute, nil, true},
		"short of polls":   {identityOptions{spread: 7 * time.Minute}, 40 * time.Minute, nil, false},
		"expired":          {identityOptions{}, 2 * time.Hour, nil, false},
		"keys in memory":   {identityOptions{memory: true}, 30 * time.Minute, nil, false},
		"tainted":          {identityOptions{}, time.Minute, func(o *onDisk) { o.tainted = []*x509.Certificate{o.ca.Cert} }, false},
		"attesting again":  {identityOptions{}, time.Minute, func(o *onDisk) { o.attestAgain() }, false},
		"lost on the disk": {identityOptions{}, time.Minute, func(o *onDisk) { o.lose() }, false},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOnDisk(t, test.opt)
			o.Fill()
			o.now = o.now.Add(test.after)
			if test.do != nil {
				test.do(o)
			}
			if err := o.renew(); (err != nil) != test.fails {
				t.Errorf("renewed: %v", err)
			}
		})
	}
}

func (o *onDisk) attestAgain() {
	o.t.Helper()
	key, err := o.renewalKey(false, o.now)
	if err == nil {
		err = o.setSVID(o.sign(key), true, o.now)
	}
	if err != nil {
		o.t.Fatal(err)
	}
}

// lose removes the state behind the agent's back, and has it notice.
func (o *onDisk) lose() {
	o.t.Helper()
	if err := os.Remove(filepath.Join(o.Dir, dataFile)); err != nil {
		o.t.Fatal(err)
	}
	o.Free()
	o.Fill()
	o.files.unsure = true // as after each failed write
}

func TestForgetsOnAFullDisk(t *testing.T) {
	o := newOnDisk(t, identityOptions{})
	o.Fill()
	if err := o.forget(); err != nil {
		t.Fatal(err)
	}
	if o.svid != nil || len(o.keys) != 0 {
		t.Error("remembered")
	}
	if ks, err := load(o.Dir, keysFile, decodeKeys); err != nil || len(ks) != 0 {
		t.Errorf("%d keys on disk, %v", len(ks), err)
	}
	o.finds(nil)
	// An agent that can attest again does so, on the full disk.
	o.Free()
	o.Fill()
	if _, err := o.joinKey(false); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a key for a token, which is good for one key: %v", err)
	}
	key, err := o.joinKey(true)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.setSVID(o.sign(key), true, o.now); err != nil {
		t.Fatal(err)
	}
	o.said("ERROR", 1)
	o.Free()
	o.settle()
	o.finds(o.svid.Certificates)
}

func TestForgetsWhereNothingCanBeWritten(t *testing.T) {
	o := newOnDisk(t, identityOptions{})
	o.ReadOnly(true)
	if err := o.forget(); !errors.Is(err, unix.EROFS) {
		t.Errorf("forgotten on a read-only disk: %v", err)
	}
	if o.svid != nil || len(o.keys) != 0 || o.settled() {
		t.Error("remembered, or taken for deleted")
	}
	o.ReadOnly(false)
	if !o.settle() {
		t.Error("not deleted")
	}
	o.finds(nil)
}

// A bundle is written where the keys can't be.
func TestBundleDoesNotWaitForKeys(t *testing.T) {
	o := newOnDisk(t, identityOptions{})
	first := o.svid
	o.Fill()
	o.now = o.now.Add(50 * time.Minute)
	if err := o.renew(); err != nil {
		t.Fatal(err)
	}
	o.Free()
	// The file of keys stays readable, and cannot be replaced: it is a mount point.
	keysPath := filepath.Join(o.Dir, keysFile)
	if err := unix.Mount(keysPath, keysPath, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(keysPath, unix.MNT_DETACH) })
	other := testca.New(t, "example.org").Cert
	if err := o.setBundle([]*x509.Certificate{o.ca.Cert, other}, nil, o.now); err != nil {
		t.Errorf("the bundle is not written: %v", err)
	}
	if o.settled() {
		t.Error("the key counts as written")
	}
	o.finds(first.Certificates)
	if d, err := load(o.Dir, dataFile, decodeData); err != nil || len(d.Bundle) != 2 {
		t.Errorf("%d authorities on disk, %v", len(d.Bundle), err)
	}
	if err := unix.Unmount(keysPath, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	o.settle()
	o.finds(o.svid.Certificates)
}

func TestRevertsOnAFullDisk(t *testing.T) {
	o := newOnDisk(t, identityOptions{})
	first := o.svid
	key, err := o.renewalKey(true, o.now)
	if err == nil {
		err = o.renewSVID(o.sign(key), o.now)
	}
	if err != nil {
		t.Fatal(err)
	}
	second := o.svid
	o.Fill()
	if !o.revert(second, o.now) || o.svid != first {
		t.Error("not reverted")
	}
	o.finds(second.Certificates)
	o.said("ERROR", 1)
	o.Free()
	o.settle()
	o.finds(first.Certificates)
}
