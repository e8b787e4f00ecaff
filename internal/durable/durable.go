// Package durable owns crash-safe files: a reader finds the old content or the
// new one, never a part, and what a call acknowledged is on disk. It does not
// know what the files hold.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// WriteFile replaces the file at path by one with data and exactly the mode
// perm. It writes a temporary file beside it, syncs that, renames it over path
// and syncs the directory. On an error the old file is as it was, unless only the
// last of these failed: then the new one is there, and may not survive a crash.
// A process that is killed leaves the temporary file, for [Sweep].
func WriteFile(path string, data []byte, perm fs.FileMode) (err error) {
	dir := filepath.Dir(path)
	prefix, suffix := tempName(path)
	f, err := os.CreateTemp(dir, prefix+"*"+suffix)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("write %s: %w", path, err), cleanUp(f))
		}
	}()
	if err := f.Chmod(perm); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return SyncDir(dir)
}

// tempName returns what the names of the temporary files for path begin and end with.
func tempName(path string) (prefix, suffix string) { return "." + filepath.Base(path) + ".", ".tmp" }

// Sweep removes the temporary files that writers of path left when they were
// killed: they may hold secrets. Nobody may be writing path meanwhile.
func Sweep(path string) error {
	dir := filepath.Dir(path)
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	prefix, suffix := tempName(path)
	for _, f := range files {
		name := f.Name()
		if !f.Type().IsRegular() || !strings.HasPrefix(name, prefix) || !strings.HasSuffix(name, suffix) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// cleanUp removes the temporary file of a failed write, if it is still there.
func cleanUp(f *os.File) error {
	f.Close()
	if err := os.Remove(f.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// SyncDir makes durable which files the directory path has, under which names.
func SyncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// MkdirPrivate makes the directory path, mode 0700; parents that are missing, for
// everyone to pass through. One that exists must be this user's or root's, and
// nobody else may write to it. Its mode stays as it is, since it may be one that
// others need, such as /var/lib: the files in it must be private themselves.
func MkdirPrivate(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fmt.Errorf("%s is not a directory: remove it or choose another path", path)
	}
	if uid := os.Geteuid(); int(st.Uid) != uid && st.Uid != 0 {
		return fmt.Errorf("directory %s belongs to uid %d, not to this user (%d): it would hold private keys; choose another or change its owner", path, st.Uid, uid)
	}
	if st.Mode&0o022 != 0 {
		return fmt.Errorf("directory %s (mode %04o) can be written to by other users: it would hold private keys; run: chmod 700 %s", path, st.Mode&0o7777, path)
	}
	return nil
}
