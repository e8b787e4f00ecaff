package upstream

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Disk is a small file system, which root alone can make.
type Disk struct {
	t   testing.TB
	Dir string
}

func NewDisk(t testing.TB) *Disk {
	t.Helper()
	d := &Disk{t: t, Dir: t.TempDir()}
	if err := unix.Mount("tmpfs", d.Dir, "tmpfs", 0, "size=64k,mode=0700"); err != nil {
		t.Skip("can't mount a small file system: ", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(d.Dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return d
}

func (d *Disk) filler() string { return filepath.Join(d.Dir, "filler") }

// Fill takes all the space that there is.
func (d *Disk) Fill() {
	d.t.Helper()
	file, err := os.Create(d.filler())
	if err != nil {
		d.t.Fatal(err)
	}
	defer file.Close()
	for err == nil {
		_, err = file.Write(make([]byte, 4096))
	}
	if !errors.Is(err, unix.ENOSPC) {
		d.t.Fatal(err)
	}
}

// Free gives it back.
func (d *Disk) Free() {
	d.t.Helper()
	if err := os.Remove(d.filler()); err != nil {
		d.t.Fatal(err)
	}
}

// ReadOnly lets nobody write, or everybody again.
func (d *Disk) ReadOnly(is bool) {
	d.t.Helper()
	flags := uintptr(unix.MS_REMOUNT)
	if is {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount("tmpfs", d.Dir, "tmpfs", flags, "size=64k,mode=0700"); err != nil {
		d.t.Fatal(err)
	}
}
