package docker

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many links the kernel follows in a path (path_resolution(7)).
const maxLinks = 40

// checkSocket refuses a socket that somebody other than root and the agent's own
// user could have put there: it, each directory above it and each link on the way
// must be theirs, and the directories writable to no one else.
func checkSocket(path string) error {
	mode, err := walk(path)
	if err != nil {
		return err
	}
	if mode&unix.S_IFMT != unix.S_IFSOCK {
		return fmt.Errorf("%s is not a socket", path)
	}
	return nil
}

// walk looks at all that the kernel passes on its way to path, and returns the
// mode of what is there.
func walk(path string) (mode uint32, err error) {
	at, left := "/", strings.Split(path, "/")
	if mode, err = look(at); err != nil {
		return 0, err
	}
	for links := 0; len(left) > 0; {
		next := filepath.Join(at, left[0])
		left = left[1:]
		if next == at {
			continue
		}
		if mode, err = look(next); err != nil {
			return 0, err
		}
		if mode&unix.S_IFMT != unix.S_IFLNK {
			at = next
			continue
		}
		target, err := os.Readlink(next)
		if err != nil {
			return 0, err
		}
		if links++; links > maxLinks {
			return 0, fmt.Errorf("%s: too many links", path)
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		left = append(strings.Split(target, "/"), left...)
	}
	return mode, nil
}

// look returns the mode of one file that only root and this user can replace.
func look(name string) (uint32, error) {
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	if st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return 0, fmt.Errorf("%s belongs to uid %d, who could have a daemon of its own answer: not asking; let root or uid %d own it", name, st.Uid, os.Geteuid())
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR && st.Mode&0o002 != 0 && st.Mode&unix.S_ISVTX == 0 {
		return 0, fmt.Errorf("directory %s can be written to by everyone, who could have a daemon of their own answer: not asking; run: chmod o-w %s", name, name)
	}
	return st.Mode, nil
}
