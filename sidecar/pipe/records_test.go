package pipe

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// FuzzRecords takes a stream apart in pieces of any size, and compares with where
// the boundaries are when it is looked at as a whole.
func FuzzRecords(f *testing.F) {
	f.Add([]byte{22, 3, 3, 0, 2, 1, 2, 23, 3, 3, 0, 0, 23, 3, 3, 0, 1}, []byte{1})
	f.Add([]byte{22, 3, 3, 1, 0}, []byte{5, 3, 255})
	f.Add(bytes.Repeat([]byte{255}, 3000), []byte{7, 100, 1})
	f.Add([]byte("GET / HTTP/1.1\r\nHost: not-tls\r\n\r\n"), []byte{2, 3})
	f.Fuzz(func(t *testing.T, stream, sizes []byte) {
		boundary := boundaries(stream)
		var r records
		for at, i := 0, 0; at < len(stream); i++ {
			room := len(stream)
			if len(sizes) > 0 {
				room = 1 + int(sizes[i%len(sizes)])
			}
			n := min(r.next(), room, len(stream)-at)
			if n < 1 {
				t.Fatalf("%d bytes at %d", n, at)
			}
			for k := at + 1; k < at+n; k++ {
				if boundary[k] {
					t.Fatalf("bytes %d to %d go past the boundary at %d", at, at+n, k)
				}
			}
			if n == r.next() && at+n < len(stream) && !boundary[at+n] {
				t.Fatalf("it stops at %d, where no boundary is", at+n)
			}
			r.pass(stream[at : at+n])
			at += n
		}
	})
}

// boundaries are the places after headers and records.
func boundaries(stream []byte) map[int]bool {
	all := map[int]bool{}
	for at := 0; at+headerSize <= len(stream); {
		n := int(binary.BigEndian.Uint16(stream[at+3:]))
		all[at+headerSize] = true
		at += headerSize + n
		all[at] = true
	}
	return all
}
