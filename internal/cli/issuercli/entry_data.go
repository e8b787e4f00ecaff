package issuercli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/lanyard-mtls/lanyard/internal/cli/entryfile"
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

// decodeJSON reads strictly: an unknown key, or something after the end, is an error.
func decodeJSON(name string, data []byte, target any) error {
	name = inputName(name)
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(target); err != nil {
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			return fmt.Errorf("%s:%d: %w", name, 1+bytes.Count(data[:min(int64(len(data)), syntax.Offset)], []byte("\n")), err)
		}
		return fmt.Errorf("%s: %w", name, err)
	}
	if d.More() {
		return fmt.Errorf("%s: more follows after the end of the JSON object", name)
	}
	return nil
}

// parseEntries reads the entries in a -data file. Every faulty one is named.
func parseEntries(name string, data []byte) ([]*types.Entry, error) {
	declared, err := entryfile.ReadJSON(inputName(name), data)
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
