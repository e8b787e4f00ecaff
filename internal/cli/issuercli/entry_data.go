package issuercli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/cli/entryfile"
	"github.com/lanyard-mtls/lanyard/internal/cli/suggest"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// readData reads a file, or standard input for "-".
func readData(stdin io.Reader, path string) ([]byte, error) {
	r := stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r = f
	}
	data, err := io.ReadAll(io.LimitReader(r, entryfile.MaxSize+1))
	if err == nil && len(data) > entryfile.MaxSize {
		err = fmt.Errorf("%s has more than %d MiB: split it", path, entryfile.MaxSize>>20)
	}
	return data, err
}

// inputName names a file for messages.
func inputName(path string) string {
	if path == "-" {
		return "standard input"
	}
	return path
}

// dataFile is a JSON file that a verb takes.
type dataFile struct {
	name    string // for messages
	data    []byte
	lenient bool // keys that nobody knows are passed over, as spire-server does
}

// dataFile reads one; by SPIRE's name as leniently as SPIRE, whose operators have such files.
func (v *verb) dataFile(path string) (dataFile, error) {
	data, err := readData(v.env.Stdin, path)
	return dataFile{inputName(path), data, v.env.Dialect == cli.SPIREServer}, err
}

// decode fills target, whose keys at any depth are known.
func (f dataFile) decode(target any, known ...string) error {
	d := json.NewDecoder(bytes.NewReader(f.data))
	if !f.lenient {
		d.DisallowUnknownFields()
	}
	err := d.Decode(target)
	if err == nil && d.More() {
		return fmt.Errorf("%s: more follows after the end of the JSON object", f.name)
	}
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("%s:%d: %w", f.name, 1+bytes.Count(f.data[:min(int64(len(f.data)), syntax.Offset)], []byte("\n")), err)
	}
	if err == nil {
		return nil
	}
	if key, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok { // the one way to know, as of Go 1.26
		return fmt.Errorf("%s: %s", f.name, suggest.Unknown("key", strings.Trim(key, `"`), known))
	}
	return fmt.Errorf("%s: %w", f.name, err)
}

// entries reads the entries in a -data file. Every faulty one is named.
func (f dataFile) entries(warn io.Writer) ([]*types.Entry, error) {
	var ignore func(string)
	if f.lenient {
		ignore = func(warning string) { fmt.Fprintf(warn, "Warning: %s (ignored)\n", warning) }
	}
	declared, err := entryfile.ReadJSON(f.name, f.data, ignore)
	var entries []*types.Entry
	for _, d := range declared {
		entries = append(entries, d.Entry)
	}
	return entries, err
}

// oneLine joins errors about one thing.
func oneLine(errs ...error) error {
	err := errors.Join(errs...)
	if err == nil {
		return nil
	}
	return errors.New(strings.ReplaceAll(err.Error(), "\n", "; "))
}
