package pipe

import "encoding/binary"

// headerSize is that of a TLS record: type, version, length (RFC 8446, section
// 5.1).
const headerSize = 5

// records knows where in a stream of TLS records the next byte is. It judges
// nothing: bytes that are no TLS are a stream of something, in which the places
// where it stops are without meaning.
type records struct {
	header [headerSize]byte
	have   uint8  // bytes of header, fewer than all
	left   uint16 // bytes of the record that are to come
}

// next is how many bytes there are to the next boundary, at least one: the end of a
// header or of a record.
func (r *records) next() int {
	if r.left > 0 {
		return int(r.left)
	}
	return headerSize - int(r.have)
}

// pass goes on by b, which holds at most what next says.
func (r *records) pass(b []byte) {
	if r.left > 0 {
		r.left -= uint16(len(b))
		return
	}
	if r.have += uint8(copy(r.header[r.have:], b)); r.have == headerSize {
		r.have, r.left = 0, binary.BigEndian.Uint16(r.header[3:])
	}
}
