package keep

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sys/unix"

	"github.com/lanyard-mtls/lanyard/internal/durable"
)

// Name is that of the file in the data directory.
const Name = "workloads.bin"

// damagedSuffix is added to the name of a file that can't be understood.
const damagedSuffix = ".damaged"

// File is where a [State] is kept. One goroutine uses it.
type File struct{ path string }

// Open returns the file in the directory dir. It does no I/O.
func Open(dir string) *File { return &File{path: filepath.Join(dir, Name)} }

// Load returns what was kept for the agent, without SVIDs that have expired;
// nil, nil if nothing was. An error says that there is something, and why it is
// not used: the agent starts without. A file that is damaged is moved aside, to
// NAME.damaged; one of another agent, of a later version, or that others could
// read, stays until it is replaced.
func (f *File) Load(agent spiffeid.ID) (*State, error) {
	return f.load(agent, time.Now())
}

func (f *File) load(agent spiffeid.ID, now time.Time) (*State, error) {
	if err := durable.Sweep(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	data, err := f.read()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	state, err := decode(data)
	var later *VersionError
	switch {
	case errors.As(err, &later):
		return nil, fmt.Errorf("%s %w", f.path, err)
	case err != nil:
		return nil, f.setAside(err)
	case state.Agent != agent:
		return nil, fmt.Errorf("%s is what %s kept, and this agent is %s: it begins anew", f.path, state.Agent, agent)
	}
	good := state.SVIDs[:0]
	for _, s := range state.SVIDs {
		if now.Before(s.NotAfter) {
			good = append(good, s)
		}
	}
	state.SVIDs = good
	return state, nil
}

// read refuses a file that others than this user could have read or written.
func (f *File) read() ([]byte, error) {
	// Never through a link, and never waiting for the other end of a pipe.
	file, err := os.OpenFile(f.path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: f.path, Err: err}
	}
	switch uid := os.Geteuid(); {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, fmt.Errorf("%s is not a regular file: remove it", f.path)
	case int(st.Uid) != uid:
		return nil, fmt.Errorf("%s belongs to uid %d, not to this user (%d): it holds private keys; remove it or change its owner", f.path, st.Uid, uid)
	case st.Mode&0o077 != 0:
		return nil, fmt.Errorf("%s (mode %04o) is open to other users, who may have its private keys: it is not used, and new ones are made", f.path, st.Mode&0o7777)
	case st.Size > maxFile:
		return nil, fmt.Errorf("%s is of %d bytes, at most %d: remove it", f.path, st.Size, int64(maxFile))
	}
	data, err := io.ReadAll(io.LimitReader(file, maxFile))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.path, err)
	}
	return data, nil
}

func (f *File) setAside(reason error) error {
	err := fmt.Errorf("%s %w: it is moved to %s, and the agent begins anew", f.path, reason, f.path+damagedSuffix)
	if moved := os.Rename(f.path, f.path+damagedSuffix); moved != nil {
		return fmt.Errorf("%s %w; it can't be moved aside either: %w", f.path, reason, moved)
	}
	return err
}

// Save replaces what is kept. On an error what was kept before is as it was.
func (f *File) Save(s *State) error {
	if s.Agent.IsZero() {
		return errors.New("a state is whose it is: no agent is named")
	}
	data, err := s.encode()
	if err != nil {
		return fmt.Errorf("write %s: %w", f.path, err)
	}
	return durable.WriteFile(f.path, data, 0o600)
}

// Remove removes what was kept, if there is anything.
func (f *File) Remove() error {
	if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
