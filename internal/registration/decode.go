package registration

import (
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// Decoder reads encoded messages types.Entry, many of which have much in common:
// parents, and most selectors. These share their memory, and what is only needed
// on the way takes none. It is for one goroutine; the zero Decoder is ready.
type Decoder struct {
	ids   map[string]spiffeid.ID
	texts map[string]string
}

// maxKnown bounds what a Decoder remembers of each.
const maxKnown = 20_000

// Entry reads an entry as [FromProto] would read its message. It reads by itself
// what entries usually have, and leaves any other to that.
func (d *Decoder) Entry(data []byte) (Entry, error) {
	if e, ok := d.usual(data); ok {
		return e, nil
	}
	p := &types.Entry{}
	if err := proto.Unmarshal(data, p); err != nil {
		return Entry{}, err
	}
	return FromProto(p)
}

// The fields of types.Entry that usual reads, and those of a SPIFFE ID and of a
// selector, which both have two texts.
const (
	fieldID        = 1
	fieldSPIFFEID  = 2
	fieldParentID  = 3
	fieldSelectors = 4
	fieldX509TTL   = 5
	fieldRevision  = 11
	fieldJWTTTL    = 13
	fieldCreatedAt = 15

	fieldFirst, fieldSecond = 1, 2
)

// usual reads an entry without templates, DNS names and the like, whose fields
// come in order; false if it is any other, or none at all.
func (d *Decoder) usual(data []byte) (e Entry, ok bool) {
	e.Selectors = make([]Selector, 0, count(data))
	last := protowire.Number(0)
	for len(data) > 0 {
		field, typ, n := protowire.ConsumeTag(data)
		if n < 0 || field < last || field == last && field != fieldSelectors {
			return e, false
		}
		last, data = field, data[n:]
		switch typ {
		case protowire.BytesType:
			var value []byte
			if value, n = protowire.ConsumeBytes(data); n < 0 || !d.text(&e, field, value) {
				return e, false
			}
		case protowire.VarintType:
			var value uint64
			if value, n = protowire.ConsumeVarint(data); n < 0 || !number(&e, field, value) {
				return e, false
			}
		default:
			return e, false
		}
		data = data[n:]
	}
	return e, !e.SPIFFEID.IsZero() && !e.ParentID.IsZero() && !unsorted(e.Selectors)
}

// count returns how many selectors there are, if all is as it should be.
func count(data []byte) (selectors int) {
	for len(data) > 0 {
		field, _, n := protowire.ConsumeField(data)
		if n < 0 {
			return 0
		}
		if field == fieldSelectors {
			selectors++
		}
		data = data[n:]
	}
	return selectors
}

func (d *Decoder) text(e *Entry, field protowire.Number, value []byte) (ok bool) {
	if !utf8.Valid(value) && field == fieldID {
		return false
	}
	switch field {
	case fieldID:
		e.ID = string(value)
		return true
	case fieldSPIFFEID:
		e.SPIFFEID, ok = d.spiffeID(value, false)
	case fieldParentID:
		e.ParentID, ok = d.spiffeID(value, true)
	case fieldSelectors:
		first, second, two := texts(value)
		s := Selector{Type: d.share(first), Value: d.share(second)}
		e.Selectors = append(e.Selectors, s)
		ok = two && s.validate() == nil
	}
	return ok
}

func number(e *Entry, field protowire.Number, value uint64) bool {
	switch field {
	case fieldX509TTL:
		e.X509SVIDTTL = time.Duration(int32(value)) * time.Second
	case fieldJWTTTL:
		e.JWTSVIDTTL = time.Duration(int32(value)) * time.Second
	case fieldRevision:
		e.Revision = int64(value)
	case fieldCreatedAt:
		e.CreatedAt = unixTime(int64(value))
	default:
		return false
	}
	return true
}

// texts reads a message of two texts.
func texts(data []byte) (first, second []byte, ok bool) {
	for want := protowire.Number(fieldFirst); want <= fieldSecond; want++ {
		field, typ, n := protowire.ConsumeTag(data)
		if n < 0 || field != want || typ != protowire.BytesType {
			return nil, nil, false
		}
		value, m := protowire.ConsumeBytes(data[n:])
		if m < 0 || !utf8.Valid(value) {
			return nil, nil, false
		}
		first, second = second, value
		data = data[n+m:]
	}
	return first, second, len(data) == 0
}

// spiffeID reads a SPIFFE ID; shared says that others are likely to have it too.
func (d *Decoder) spiffeID(data []byte, shared bool) (spiffeid.ID, bool) {
	if id, ok := d.ids[string(data)]; ok && shared {
		return id, true
	}
	td, path, ok := texts(data)
	if !ok || len(td) == 0 || len(path) == 0 || path[0] != '/' {
		return spiffeid.ID{}, false
	}
	var text strings.Builder
	text.Grow(len("spiffe://") + len(td) + len(path))
	text.WriteString("spiffe://")
	text.Write(td)
	text.Write(path)
	id, err := spiffeid.FromString(text.String())
	// The trust domain must end where it did.
	if err != nil || len(id.TrustDomain().Name()) != len(td) {
		return spiffeid.ID{}, false
	}
	if shared && len(d.ids) < maxKnown {
		if d.ids == nil {
			d.ids = make(map[string]spiffeid.ID)
		}
		d.ids[string(data)] = id
	}
	return id, true
}

func (d *Decoder) share(text []byte) string {
	if s, ok := d.texts[string(text)]; ok {
		return s
	}
	s := string(text)
	if len(d.texts) < maxKnown {
		if d.texts == nil {
			d.texts = make(map[string]string)
		}
		d.texts[s] = s
	}
	return s
}

func unsorted(sel []Selector) bool {
	for i := 1; i < len(sel); i++ {
		if compareSelectors(sel[i-1], sel[i]) >= 0 {
			return true
		}
	}
	return false
}
