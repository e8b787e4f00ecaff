package workloadattest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// errTooLong says that a file is longer than the limit.
	errTooLong = errors.New("longer than the limit")
	// errUserServed says that a file's content and times are whatever some
	// process says.
	errUserServed = errors.New("on FUSE")
)

const (
	// maxHashes bounds the cache: a node runs fewer kinds of programs.
	maxHashes = 1024
	// hashers is how many files are read at once: callers with programs never
	// seen must not take the disk and all cores.
	hashers = 2
	// settled is how old a file's last change must be for its sum to be kept. A
	// change within the same tick of the file system's clock leaves no trace: a
	// tick is 10 ms at most, or 2 s where file systems keep whole seconds.
	settled       = 100 * time.Millisecond
	settledCoarse = 3 * time.Second
	// turnPatience is how long a caller waits for another that reads the same file.
	turnPatience = 2 * time.Second
)

// fileVersion tells whether a file's content can have changed. The change time
// is in it because a modification time can be set back.
type fileVersion struct {
	dev, ino, size uint64
	mtime, ctime   unix.Timespec
}

// hashCache remembers SHA-256 sums of files. A file that many callers run at
// once is read once.
type hashCache struct {
	turns
	now func() time.Time

	mu   sync.Mutex
	sums map[fileVersion]*fileSum
}

// fileSum is filled by one caller while it has turn; the others wait for it.
type fileSum struct {
	turn chan struct{}
	hex  string
}

func newHashCache() *hashCache {
	return &hashCache{turns: newTurns(), now: time.Now, sums: make(map[fileVersion]*fileSum)}
}

// sum returns the lower-case hex SHA-256 of f's whole content, which it reads for
// a user.
func (c *hashCache) sum(ctx context.Context, uid uint32, f *os.File, limit int64) (string, error) {
	before, err := version(f)
	if err != nil {
		return "", err
	}
	if limit > 0 && before.size > uint64(limit) {
		return "", errTooLong
	}
	s := c.entry(before)
	turn, err := s.wait(ctx)
	if err != nil {
		return "", err
	}
	if turn {
		defer func() { <-s.turn }()
		if s.hex != "" {
			return s.hex, nil
		}
	}
	now := c.now() // before the first byte is read
	h := sha256.New()
	r := &turnReader{ctx: ctx, turns: &c.turns, uid: uid, r: io.NewSectionReader(f, 0, int64(before.size))}
	_, err = io.Copy(h, r)
	r.close()
	if err != nil {
		return "", err
	}
	after, err := version(f)
	if err != nil {
		return "", err
	}
	if after != before {
		return "", errors.New("the file changed while it was read")
	}
	sum := hex.EncodeToString(h.Sum(nil))
	wait := settled
	if before.ctime.Nsec == 0 {
		wait = settledCoarse
	}
	if age := now.Sub(time.Unix(before.ctime.Unix())); turn && age > wait {
		s.hex = sum
	}
	return sum, nil
}

// wait waits for a turn at the file, but not for long: who has it may be of a user
// with many files to be read. Without it the sum is not kept.
func (s *fileSum) wait(ctx context.Context) (turn bool, err error) {
	soon, cancel := context.WithTimeout(ctx, turnPatience)
	defer cancel()
	if err := take(soon, s.turn); err != nil {
		return false, ctx.Err()
	}
	return true, nil
}

func (c *hashCache) entry(v fileVersion) *fileSum {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sums[v]
	if s == nil {
		if len(c.sums) >= maxHashes {
			// Rare enough that what goes first does not matter.
			for old := range c.sums {
				delete(c.sums, old)
				break
			}
		}
		s = &fileSum{turn: make(chan struct{}, 1)}
		c.sums[v] = s
	}
	return s
}

func version(f *os.File) (fileVersion, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return fileVersion{}, err
	}
	var st unix.Stat_t
	var fs unix.Statfs_t
	var statErr error
	err = raw.Control(func(fd uintptr) {
		statErr = errors.Join(unix.Fstat(int(fd), &st), unix.Fstatfs(int(fd), &fs))
	})
	if err := errors.Join(err, statErr); err != nil {
		return fileVersion{}, err
	}
	if fs.Type == unix.FUSE_SUPER_MAGIC {
		return fileVersion{}, errUserServed
	}
	return fileVersion{dev: uint64(st.Dev), ino: st.Ino, size: uint64(st.Size), mtime: st.Mtim, ctime: st.Ctim}, nil
}
