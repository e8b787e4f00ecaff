package workloadattest

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Key tells processes apart: no two have the same, not even one after another
// under one number. It is comparable. One process may have several over time.
type Key struct {
	pid int
	// Of the pidfd where that is the process's alone; else of /proc/PID, beside
	// the time when the process started.
	ino, start uint64
}

func inode(fd int) (uint64, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return st.Ino, err
}

func (p *pin) keyByStart() (Key, error) {
	dir, err := openDir(p.pid)
	if err != nil {
		return Key{}, err
	}
	defer dir.Close()
	return startKey(dir, p.pid)
}

// startKey is the key of a process without an inode of its own. A number can
// come back within one clock tick, but not with the same inode of /proc/PID.
func startKey(dir *os.File, pid int) (Key, error) {
	st, err := readStat(dir)
	if err != nil {
		return Key{}, err
	}
	ino, err := fileInode(dir)
	return Key{pid: pid, ino: ino, start: st.start}, err
}

func fileInode(f *os.File) (ino uint64, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var statErr error
	err = raw.Control(func(fd uintptr) { ino, statErr = inode(int(fd)) })
	return ino, errors.Join(err, statErr)
}
