// Package backup owns what a backup of an issuer is: one tar file with the store's records and the private keys, and the way
// back into a fresh data directory. It does not encrypt (that is internal/seal), and it does not know what the records mean
// (that is issuer/store).
//
// The file has, in this order and nothing else: backup.json, which says whose it is; the records, in pieces store/000000,
// store/000001 and so on, since their size is not known before they are copied; keys.json, if the keys are in a file; and
// manifest.json, with sizes and SHA-256 hashes. A file that was cut off has no manifest.
package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// format is the version of this layout. A reader refuses others.
const format = 1

// The names in the file, and what bounds their sizes, in bytes.
const (
	headerName   = "backup.json"
	storePieces  = "store/%06d"
	keysName     = "keys.json"
	manifestName = "manifest.json"

	pieceSize = 4 << 20
	maxStore  = 16 << 30 // etcd takes writes up to 8 GiB
	maxKeys   = 1 << 20  // as ca.OpenKeys
	maxJSON   = 64 << 10
)

// header is backup.json.
type header struct {
	Format      int       `json:"format"`
	Version     string    `json:"lanyard_version"`
	TrustDomain string    `json:"trust_domain"`
	CreatedAt   time.Time `json:"created_at"`
}

// manifest is manifest.json.
type manifest struct {
	Store sum  `json:"store"`
	Keys  *sum `json:"keys,omitempty"`
}

type sum struct {
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Parts are what a backup is made of.
type Parts struct {
	TrustDomain spiffeid.TrustDomain
	// Save writes a consistent copy of the records.
	Save func(ctx context.Context, w io.Writer) (int64, error)
	// KeyFile has the private keys; "" if they are kept in memory alone, and a restored issuer then makes new ones.
	KeyFile string
	// Version is Lanyard's, for the reader.
	Version string
	Now     func() time.Time // nil is time.Now
}

// Write writes a backup to w. It is as secret as the private keys in it. What was written is of no use unless the error is
// nil.
func Write(ctx context.Context, w io.Writer, p Parts) error {
	if p.Now == nil {
		p.Now = time.Now
	}
	now := p.Now().UTC()
	out := tar.NewWriter(w)
	if err := writeJSON(out, now, headerName, header{Format: format, Version: p.Version, TrustDomain: p.TrustDomain.Name(), CreatedAt: now.Truncate(time.Second)}); err != nil {
		return err
	}
	pieces := &pieceWriter{out: out, now: now, hash: sha256.New()}
	if _, err := p.Save(ctx, pieces); err != nil {
		return fmt.Errorf("backup: copy of the records: %w", err)
	}
	if err := pieces.flush(); err != nil {
		return err
	}
	m := manifest{Store: sum{Size: pieces.size, SHA256: hex.EncodeToString(pieces.hash.Sum(nil))}}
	// After the records: a key is on disk before they name it, and a rotation meanwhile takes the place of none that signs.
	if p.KeyFile != "" {
		keys, err := readKeys(p.KeyFile)
		if err != nil {
			return fmt.Errorf("backup: %w", err)
		}
		if err := writeFile(out, now, keysName, keys); err != nil {
			return err
		}
		m.Keys = sumOf(keys)
	}
	if err := writeJSON(out, now, manifestName, m); err != nil {
		return err
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	return nil
}

func readKeys(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	keys, err := io.ReadAll(io.LimitReader(f, maxKeys+1))
	if err == nil && len(keys) > maxKeys {
		return nil, fmt.Errorf("key file %s is larger than %d bytes", file, maxKeys)
	}
	return keys, err
}

func sumOf(data []byte) *sum {
	h := sha256.Sum256(data)
	return &sum{Size: int64(len(data)), SHA256: hex.EncodeToString(h[:])}
}

func writeJSON(out *tar.Writer, now time.Time, name string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	return writeFile(out, now, name, append(data, '\n'))
}

func writeFile(out *tar.Writer, now time.Time, name string, data []byte) error {
	err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(data)), Mode: 0o600, ModTime: now.Truncate(time.Second), Format: tar.FormatUSTAR})
	if err == nil {
		_, err = out.Write(data)
	}
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	return nil
}

// pieceWriter makes files of at most pieceSize of what is written to it.
type pieceWriter struct {
	out  *tar.Writer
	now  time.Time
	hash hash.Hash
	size int64
	next int
	buf  bytes.Buffer
}

func (w *pieceWriter) Write(p []byte) (int, error) {
	w.hash.Write(p)
	w.size += int64(len(p))
	if w.size > maxStore {
		return 0, errors.New("the store is larger than a backup can be")
	}
	for rest := p; len(rest) > 0; {
		n := min(len(rest), pieceSize-w.buf.Len())
		w.buf.Write(rest[:n])
		rest = rest[n:]
		if w.buf.Len() == pieceSize {
			if err := w.flush(); err != nil {
				return 0, err
			}
		}
	}
	return len(p), nil
}

// flush writes what is left.
func (w *pieceWriter) flush() error {
	if w.buf.Len() == 0 {
		return nil
	}
	err := writeFile(w.out, w.now, fmt.Sprintf(storePieces, w.next), w.buf.Bytes())
	w.next++
	w.buf.Reset()
	return err
}
