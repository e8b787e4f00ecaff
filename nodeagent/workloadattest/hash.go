package workloadattest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// errTooLong says that a file is longer than the limit.
var errTooLong = errors.New("longer than the limit")

// maxHashes bounds the cache: a node runs fewer kinds of programs.
const maxHashes = 1024

// fileVersion tells whether a file's content can have changed. The change time
// is in it because a modification time can be set back.
type fileVersion struct {
	dev, ino, size uint64
	mtime, ctime   unix.Timespec
}

// hashCache remembers SHA-256 sums of files. A file that many callers run at
// once is read once.
type hashCache struct {
	mu   sync.Mutex
	sums map[fileVersion]*fileSum
}

// fileSum is filled by one caller while it holds mu; the others wait for it.
type fileSum struct {
	mu  sync.Mutex
	hex string
}

func newHashCache() *hashCache {
	return &hashCache{sums: make(map[fileVersion]*fileSum)}
}

// sum returns the lower-case hex SHA-256 of f's whole content.
func (c *hashCache) sum(ctx context.Context, f *os.File, limit int64) (string, error) {
	before, err := version(f)
	if err != nil {
		return "", err
	}
	if limit > 0 && before.size > uint64(limit) {
		return "", errTooLong
	}
	s := c.entry(before)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hex != "" {
		return s.hex, nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, &cancelReader{ctx: ctx, r: io.LimitReader(f, int64(before.size))}); err != nil {
		return "", err
	}
	after, err := version(f)
	if err != nil {
		return "", err
	}
	if after != before {
		return "", errors.New("the file changed while it was read")
	}
	s.hex = hex.EncodeToString(h.Sum(nil))
	return s.hex, nil
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
		s = new(fileSum)
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
	var statErr error
	err = raw.Control(func(fd uintptr) { statErr = unix.Fstat(int(fd), &st) })
	if err := errors.Join(err, statErr); err != nil {
		return fileVersion{}, err
	}
	return fileVersion{dev: uint64(st.Dev), ino: st.Ino, size: uint64(st.Size), mtime: st.Mtim, ctime: st.Ctim}, nil
}

// cancelReader stops reading when ctx ends.
type cancelReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *cancelReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
