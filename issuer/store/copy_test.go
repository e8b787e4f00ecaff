package store

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	mvccpb "go.etcd.io/etcd/api/v3/mvccpb"
)

func copyOf(t testing.TB, records ...string) []byte {
	t.Helper()
	var buf bytes.Buffer
	out := newCopyWriter(&buf)
	for i := 0; i < len(records); i += 2 {
		if err := out.record(&mvccpb.KeyValue{Key: []byte(records[i]), Value: []byte(records[i+1])}); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.finish(); err != nil {
		t.Fatal(err)
	}
	if int(out.size) != buf.Len() {
		t.Errorf("size %d, wrote %d", out.size, buf.Len())
	}
	return buf.Bytes()
}

func readAll(data []byte) (records []string, err error) {
	err = readCopy(bytes.NewReader(data), func(key string, value []byte) error {
		records = append(records, key, string(value))
		return nil
	})
	return records, err
}

// Of a copy that lost or changed as much as a bit nothing is believed.
func TestCopyIsWholeOrNothing(t *testing.T) {
	good := copyOf(t, root+"a", "1", root+"b", strings.Repeat("x", 300), root+"c", "")
	records, err := readAll(good)
	if err != nil || len(records) != 6 {
		t.Fatalf("%q, %v", records, err)
	}
	for n := range len(good) {
		if _, err := readAll(good[:n]); !errors.Is(err, errBadCopy) {
			t.Errorf("the first %d bytes: %v", n, err)
		}
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[n] ^= 1 << bit
			if _, err := readAll(bad); !errors.Is(err, errBadCopy) && !isOverflow(err) {
				t.Errorf("bit %d of byte %d: %v", bit, n, err)
			}
		}
	}
	for name, bad := range map[string][]byte{
		"longer":       append(bytes.Clone(good), 0),
		"other place":  copyOf(t, "etcd/a", "1"),
		"out of order": copyOf(t, root+"b", "1", root+"a", "1"),
		"twice":        copyOf(t, root+"b", "1", root+"b", "1"),
	} {
		if _, err := readAll(bad); !errors.Is(err, errBadCopy) {
			t.Errorf("%s: %v", name, err)
		}
	}
	broken := errors.New("broken")
	if err := readCopy(io.MultiReader(bytes.NewReader(good[:30]), iotestErr{broken}), nil2); !errors.Is(err, broken) {
		t.Errorf("an input that fails: %v", err)
	}
}

func nil2(string, []byte) error { return nil }

type iotestErr struct{ err error }

func (r iotestErr) Read([]byte) (int, error) { return 0, r.err }

func isOverflow(err error) bool { return err != nil && strings.Contains(err.Error(), "overflow") }

func FuzzReadCopy(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte(copyMagic))
	f.Add(copyOf(f))
	f.Add(copyOf(f, root+"a", "1", root+"b", "2"))
	f.Fuzz(func(t *testing.T, data []byte) {
		// With a good checksum, or nothing behind the first test of it is tried.
		sum := sha256.Sum256(data)
		for _, data := range [][]byte{data, append(bytes.Clone(data), sum[:]...)} {
			records, err := readAll(data)
			if err != nil {
				continue
			}
			again, err := readAll(copyOf(t, records...))
			if err != nil || !slices.Equal(again, records) {
				t.Errorf("read %q, and from a copy of it %q, %v", records, again, err)
			}
		}
	})
}
