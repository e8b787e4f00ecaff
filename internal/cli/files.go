package cli

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/lanyard-mtls/lanyard/internal/durable"
)

// PEM encodes each of ders as a block of the kind.
func PEM(kind string, ders ...[]byte) []byte {
	var b bytes.Buffer
	for _, der := range ders {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return b.Bytes()
}

// Artifact is a file that a verb writes.
type Artifact struct {
	What string // told for it, with one %s for the path; "" tells nothing
	Path string
	Data []byte
	Mode fs.FileMode
}

// WriteFiles writes files, each atomically and readable as its mode says from the start, into directories that are there.
func WriteFiles(out io.Writer, files ...Artifact) error {
	for _, f := range files {
		dir := filepath.Dir(f.Path)
		switch info, err := os.Stat(dir); {
		case errors.Is(err, fs.ErrNotExist):
			return Hint(fmt.Errorf("directory %s does not exist", dir), "make it first: mkdir -m 700 %s", dir)
		case err != nil:
			return err
		case !info.IsDir():
			return fmt.Errorf("%s is not a directory", dir)
		}
		if err := durable.WriteFile(f.Path, f.Data, f.Mode); err != nil {
			return err
		}
		if f.What != "" {
			fmt.Fprintf(out, f.What, f.Path)
		}
	}
	return nil
}
