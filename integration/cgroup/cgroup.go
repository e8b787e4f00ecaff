// Package cgroup owns taking away the cgroups that tests have made. It makes none.
package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Remove removes the cgroup dir and all below it. None there is no error; one that
// has processes still is.
func Remove(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, Remove(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(err, syscall.Rmdir(dir))
}
