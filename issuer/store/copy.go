package store

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"

	mvccpb "go.etcd.io/etcd/api/v3/mvccpb"
)

// A copy of a store is this line, then its records in the order of their keys,
// each as two byte strings with their lengths as unsigned varints before them,
// then a zero, which is no length of a key, then the SHA-256 of all that.
const copyMagic = "lanyard store copy 1\n"

const (
	// maxCopiedKey bounds a key in a copy: an agent's SPIFFE ID and an entry ID.
	maxCopiedKey = 8 << 10
	// maxCopiedValue is what etcd takes at most.
	maxCopiedValue = maxRequestBytes
)

// copyWriter writes a copy.
type copyWriter struct {
	w    *bufio.Writer
	to   io.Writer
	hash hash.Hash
	size int64
	buf  []byte
}

func newCopyWriter(w io.Writer) *copyWriter {
	c := &copyWriter{to: w, hash: sha256.New(), buf: []byte(copyMagic)}
	c.w = bufio.NewWriterSize(io.MultiWriter(w, c.hash, (*copySize)(&c.size)), 256<<10)
	return c
}

// copySize counts what is written.
type copySize int64

func (n *copySize) Write(p []byte) (int, error) {
	*n += copySize(len(p))
	return len(p), nil
}

func (c *copyWriter) record(kv *mvccpb.KeyValue) error {
	for _, part := range [][]byte{kv.Key, kv.Value} {
		c.buf = append(binary.AppendUvarint(c.buf, uint64(len(part))), part...)
	}
	return c.write()
}

func (c *copyWriter) write() error {
	_, err := c.w.Write(c.buf)
	c.buf = c.buf[:0]
	return err
}

func (c *copyWriter) finish() error {
	c.buf = append(c.buf, 0)
	if err := errors.Join(c.write(), c.w.Flush()); err != nil {
		return err
	}
	n, err := c.to.Write(c.hash.Sum(nil))
	c.size += int64(n)
	return err
}

// errBadCopy is what every fault of a copy's form wraps.
var errBadCopy = errors.New("is no whole copy of a store")

// readCopy calls visit for each record of a copy. That it is whole and unchanged
// is known only when it returns nil.
func readCopy(r io.Reader, visit func(key string, value []byte) error) error {
	sum := sha256.New()
	in := &copyReader{r: bufio.NewReaderSize(r, 256<<10), hash: sum}
	magic, err := in.take(len(copyMagic))
	if err != nil || string(magic) != copyMagic {
		return fmt.Errorf("the input %w: it does not begin with %q", errBadCopy, strings.TrimSpace(copyMagic))
	}
	last := ""
	for {
		key, err := in.bytes(maxCopiedKey)
		if err != nil {
			return err
		}
		if len(key) == 0 {
			return in.end()
		}
		value, err := in.bytes(maxCopiedValue)
		if err != nil {
			return err
		}
		if !strings.HasPrefix(string(key), root) || string(key) <= last {
			return fmt.Errorf("the input %w: record %.256q is out of place", errBadCopy, key)
		}
		last = string(key)
		if err := visit(last, value); err != nil {
			return err
		}
	}
}

type copyReader struct {
	r    *bufio.Reader
	hash hash.Hash
}

// ReadByte implements [io.ByteReader].
func (c *copyReader) ReadByte() (byte, error) {
	b, err := c.r.ReadByte()
	if err == nil {
		c.hash.Write([]byte{b})
	}
	return b, err
}

// bytes reads a byte string with its length before it.
func (c *copyReader) bytes(limit uint64) ([]byte, error) {
	n, err := binary.ReadUvarint(c)
	if err != nil {
		return nil, cut(err)
	}
	if n > limit {
		return nil, fmt.Errorf("the input %w: it has a string of %d bytes, at most %d", errBadCopy, n, limit)
	}
	return c.take(int(n))
}

func (c *copyReader) take(n int) ([]byte, error) {
	data := make([]byte, n)
	if _, err := io.ReadFull(c.r, data); err != nil {
		return nil, cut(err)
	}
	c.hash.Write(data)
	return data, nil
}

// end reads the sum, behind which there is nothing.
func (c *copyReader) end() error {
	var sum [sha256.Size]byte
	if _, err := io.ReadFull(c.r, sum[:]); err != nil {
		return cut(err)
	}
	if string(c.hash.Sum(nil)) != string(sum[:]) {
		return fmt.Errorf("the input %w: its checksum is wrong", errBadCopy)
	}
	if _, err := c.r.ReadByte(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("the input %w: something follows it", errBadCopy)
	}
	return nil
}

// cut tells an input that ends too early from one that cannot be read.
func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the input %w: it ends too early", errBadCopy)
	}
	return err
}
