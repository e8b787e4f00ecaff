package backup

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// ErrInvalid is wrapped where what is read is no whole backup.
var ErrInvalid = errors.New("not a whole backup of an issuer")

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

// Restored is what a backup was.
type Restored struct {
	TrustDomain spiffeid.TrustDomain
	CreatedAt   time.Time
	Version     string
	HasKeys     bool
}

// content is a backup that was read and found whole.
type content struct {
	Restored
	keys []byte
}

// reader reads a backup, of which every byte may be an enemy's: it takes the names in their order and no others, so no name
// in the file ever becomes one on disk.
type reader struct {
	in  *tar.Reader
	cur *tar.Header // the next file; nil after the last
}

// read copies the records to store and returns the rest. want is the trust domain that it must be of; zero takes any.
func read(ctx context.Context, from io.Reader, want spiffeid.TrustDomain, store io.Writer) (*content, error) {
	from = &cancellable{ctx: ctx, r: from}
	r := &reader{in: tar.NewReader(from)}
	if err := r.advance(); err != nil {
		return nil, err
	}
	c := &content{}
	if err := r.header(c, want); err != nil {
		return nil, err
	}
	got := manifest{}
	if err := r.store(store, &got.Store); err != nil {
		return nil, err
	}
	if r.is(keysName) {
		var err error
		if c.keys, err = r.file(maxKeys); err != nil {
			return nil, err
		}
		got.Keys, c.HasKeys = sumOf(c.keys), true
	}
	if err := r.manifest(got); err != nil {
		return nil, err
	}
	return c, drain(from)
}

// advance goes to the next file.
func (r *reader) advance() error {
	h, err := r.in.Next()
	switch {
	case errors.Is(err, io.EOF):
		r.cur = nil
		return nil
	case errors.Is(err, tar.ErrHeader), errors.Is(err, io.ErrUnexpectedEOF):
		return invalid("%v", err)
	case err != nil:
		return fmt.Errorf("backup: %w", err)
	case h.Typeflag != tar.TypeReg, h.Format != tar.FormatUSTAR: // PAX could write gigabytes of nothing in a line
		return invalid("it has something other than plain files")
	}
	r.cur = h
	return nil
}

func (r *reader) is(name string) bool { return r.cur != nil && r.cur.Name == name }

// file reads the current file, of at most max bytes, and goes to the next.
func (r *reader) file(most int64) ([]byte, error) {
	if r.cur.Size > most {
		return nil, invalid("%s is too large", r.cur.Name)
	}
	data, err := io.ReadAll(r.in)
	if err != nil {
		return nil, cutOff(err)
	}
	return data, r.advance()
}

// cutOff is what an error within a file means.
func cutOff(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return invalid("it ends too early")
	}
	return fmt.Errorf("backup: %w", err)
}

func (r *reader) object(name string, v any) error {
	if !r.is(name) {
		return invalid("%s is missing", name)
	}
	data, err := r.file(maxJSON)
	if err != nil {
		return err
	}
	if json.Unmarshal(data, v) != nil {
		return invalid("%s cannot be read", name)
	}
	return nil
}

func (r *reader) header(c *content, want spiffeid.TrustDomain) error {
	var h header
	if err := r.object(headerName, &h); err != nil {
		return err
	}
	if h.Format != format {
		return fmt.Errorf("the backup has format %d, made by Lanyard %.40q; this one reads format %d: restore with that version", h.Format, h.Version, format)
	}
	td, err := spiffeid.TrustDomainFromString(h.TrustDomain)
	if err != nil || td.Name() != h.TrustDomain {
		return invalid("its trust domain is none")
	}
	if !want.IsZero() && td != want {
		return fmt.Errorf("the backup is of trust domain %q, not of %q: name that one, or another backup", td.Name(), want.Name())
	}
	c.TrustDomain, c.CreatedAt, c.Version = td, h.CreatedAt, h.Version
	return nil
}

// store copies the pieces of the records.
func (r *reader) store(to io.Writer, got *sum) error {
	h := sha256.New()
	for i := 0; r.is(fmt.Sprintf(storePieces, i)); i++ {
		if r.cur.Size > pieceSize || got.Size > maxStore-pieceSize {
			return invalid("%s is too large", r.cur.Name)
		}
		n, err := io.Copy(io.MultiWriter(to, h), r.in)
		if got.Size += n; err != nil {
			return cutOff(err)
		}
		if err := r.advance(); err != nil {
			return err
		}
	}
	got.SHA256 = hex.EncodeToString(h.Sum(nil))
	return nil
}

// manifest compares what was read with what was written.
func (r *reader) manifest(got manifest) error {
	var want manifest
	if err := r.object(manifestName, &want); err != nil {
		return err
	}
	switch {
	case r.cur != nil:
		return invalid("there is something after its manifest")
	case want.Store != got.Store:
		return invalid("the records are not those that were written")
	case (want.Keys == nil) != (got.Keys == nil), want.Keys != nil && *want.Keys != *got.Keys:
		return invalid("the keys are not those that were written")
	}
	return nil
}

// maxTrailer bounds what may follow the last file: tar fills up its last record.
const maxTrailer = 1 << 20

// drain reads to the end: only there does encryption say that nothing is missing.
func drain(from io.Reader) error {
	n, err := io.Copy(io.Discard, io.LimitReader(from, maxTrailer+1))
	switch {
	case err != nil:
		return fmt.Errorf("backup: %w", err)
	case n > maxTrailer:
		return invalid("there is something after its end")
	}
	return nil
}

// cancellable ends with its context.
type cancellable struct {
	ctx context.Context
	r   io.Reader
}

func (c *cancellable) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}
