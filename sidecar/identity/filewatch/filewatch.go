// Package filewatch owns the knowledge that files changed: by inotify on the directories that lead to them, so that renames
// and swapped symbolic links, as editors and Kubernetes make them, are seen. It reads no file.
package filewatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// settle is how long further events are waited for after one: pairs of files are rarely written at once.
	settle = 100 * time.Millisecond
	// glance is how often files are looked at without an event: network file systems have none.
	glance = time.Minute
	// glanceOften is the same where there is no inotify.
	glanceOften = 5 * time.Second
)

// Files are files whose changes are watched for.
type Files struct {
	paths []string
	seen  []print
	log   *slog.Logger
}

// New remembers what the files look like now, before they are read.
func New(log *slog.Logger, paths ...string) *Files {
	f := &Files{paths: paths, log: log}
	f.seen = f.look()
	return f
}

// print is what tells a file from the one that was there before.
type print struct {
	dev, ino   uint64
	size       int64
	mtim, ctim unix.Timespec
	err        error
}

func (f *Files) look() []print {
	var all []print
	for _, path := range f.paths {
		var st unix.Stat_t
		err := unix.Stat(path, &st)
		all = append(all, print{dev: st.Dev, ino: st.Ino, size: st.Size, mtim: st.Mtim, ctim: st.Ctim, err: err})
	}
	return all
}

// changed reports whether the files differ from those seen last.
func (f *Files) changed() bool {
	now := f.look()
	if slices.Equal(now, f.seen) {
		return false
	}
	f.seen = now
	return true
}

// Run calls changed, one at a time, after each change of a file until ctx ends, and then returns nil. Several changes
// within a tenth of a second may be told as one. A file that is missing has changed when it comes.
func (f *Files) Run(ctx context.Context, changed func()) error {
	every := glance
	n, err := newNotifier()
	if err != nil {
		f.log.Warn("cannot watch files by inotify, looking at them every few seconds", "error", err)
		every = glanceOften
	}
	events := make(chan struct{}, 1)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		if n != nil {
			n.run(events)
		}
	}()
	defer func() {
		if n != nil {
			n.file.Close()
		}
		<-stopped
	}()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if n != nil {
			n.follow(f.paths) // before the look: what changes after it makes an event
		}
		if f.changed() {
			changed()
		}
		select {
		case <-events:
			select {
			case <-time.After(settle):
			case <-ctx.Done():
				return nil
			}
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// notifier is an inotify instance.
type notifier struct {
	file    *os.File
	watches map[string]uint32 // watch descriptors by directory; of the goroutine that calls watch
}

func newNotifier() (*notifier, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	return &notifier{file: os.NewFile(uintptr(fd), "inotify"), watches: map[string]uint32{}}, nil
}

// run passes on that there were events, not which: what they were about may be gone already.
func (n *notifier) run(events chan<- struct{}) {
	buf := make([]byte, 16<<10)
	for {
		if _, err := n.file.Read(buf); err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return // closed
		}
		select {
		case events <- struct{}{}:
		default: // there is one to come
		}
	}
}

const interest = unix.IN_CREATE | unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE | unix.IN_ATTRIB |
	unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR

// follow watches all directories that lead to paths. A directory on the way that came between the look for it and the watch
// of its parent made no event: that is seen by looking again.
func (n *notifier) follow(paths []string) {
	for range maxLinks {
		dirs := directories(paths)
		n.watch(dirs)
		if slices.Equal(directories(paths), dirs) {
			return
		}
	}
}

// watch makes dirs the directories that are watched.
func (n *notifier) watch(dirs []string) {
	raw, err := n.file.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) {
		next := map[string]uint32{}
		for _, dir := range dirs {
			// A directory that was replaced by another of its name gets a new watch.
			if wd, err := unix.InotifyAddWatch(int(fd), dir, interest); err == nil {
				next[dir] = uint32(wd)
			}
		}
		kept := slices.Collect(maps.Values(next))
		for _, wd := range n.watches {
			if !slices.Contains(kept, wd) {
				unix.InotifyRmWatch(int(fd), wd) // may be gone by itself
			}
		}
		n.watches = next
	})
}
