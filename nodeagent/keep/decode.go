package keep

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/nodeagent/jwtsvid"
)

// VersionError is a file that a later version of Lanyard wrote.
type VersionError struct{ Version int }

func (e *VersionError) Error() string {
	return fmt.Sprintf("is of format %d, and this agent reads up to %d: a later version wrote it", e.Version, version)
}

// decode never repeats content in an error: it is secret.
func decode(data []byte) (*State, error) {
	rest, ok := bytes.CutPrefix(data, []byte(magic))
	if !ok || len(rest) == 0 {
		return nil, errors.New("does not begin as such a file does")
	}
	if rest[0] != version {
		return nil, &VersionError{int(rest[0])}
	}
	const tail = 1 + 4 + sha256.Size
	if len(data) < len(magic)+1+tail {
		return nil, errors.New("is cut short")
	}
	body, end := data[:len(data)-tail], data[len(data)-tail:]
	sum := sha256.Sum256(body)
	if !bytes.Equal(end, appendFrame(nil, kindSum, sum[:])) {
		return nil, errors.New("is cut short or damaged: its checksum is another")
	}
	d := decoder{state: &State{Federated: make(map[spiffeid.TrustDomain]*x509bundle.Bundle), JWT: make(map[spiffeid.TrustDomain]*jwtsvid.Bundle)}}
	if err := d.frames(body[len(magic)+1:]); err != nil {
		return nil, err
	}
	d.state.Entries = slices.Values(d.entries)
	return d.state, nil
}

type decoder struct {
	state   *State
	entries []registration.Entry
	read    registration.Decoder
}

func (d *decoder) frames(data []byte) error {
	for n := 0; len(data) > 0; n++ {
		if len(data) < 5 {
			return fmt.Errorf("frame %d is cut short", n)
		}
		kind, size := data[0], int64(binary.BigEndian.Uint32(data[1:]))
		if size > maxFrame || size > int64(len(data)-5) {
			return fmt.Errorf("frame %d is of %d bytes: too long", n, size)
		}
		if (kind == kindHead) != (n == 0) {
			return fmt.Errorf("frame %d is of kind %d: out of order", n, kind)
		}
		if err := d.frame(kind, data[5:5+size]); err != nil {
			return fmt.Errorf("frame %d: %w", n, err)
		}
		data = data[5+size:]
	}
	if d.state.Agent.IsZero() {
		return errors.New("does not say whose it is")
	}
	return nil
}

func (d *decoder) frame(kind byte, body []byte) error {
	switch kind {
	case kindHead:
		return d.head(body)
	case kindEntry:
		e, err := d.read.Entry(body)
		if err != nil {
			return errors.New("is no entry")
		}
		d.entries = append(d.entries, e)
		return nil
	case kindBundle:
		return d.bundle(body)
	case kindSVID:
		return d.svid(body)
	}
	return fmt.Errorf("is of kind %d, which is not known", kind)
}

func (d *decoder) head(body []byte) error {
	texts, numbers, err := message(body)
	if err != nil {
		return err
	}
	if d.state.Agent, err = spiffeid.FromString(string(texts[headAgent])); err != nil {
		return errors.New("does not say whose it is")
	}
	d.state.Saved = unixSeconds(numbers[headSaved])
	return nil
}

func (d *decoder) svid(body []byte) error {
	texts, numbers, err := message(body)
	if err != nil {
		return err
	}
	s := SVID{
		EntryID: string(texts[svidEntry]), Chain: texts[svidChain], Key: texts[svidKey],
		RotateAt: time.UnixMilli(numbers[svidRotateAt]), NotAfter: unixSeconds(numbers[svidNotAfter]),
	}
	if s.EntryID == "" || len(s.Chain) == 0 || len(s.Key) == 0 {
		return errors.New("is no SVID")
	}
	d.state.SVIDs = append(d.state.SVIDs, s)
	return nil
}

// message reads texts and numbers by their fields. What is not known is skipped.
func message(body []byte) (map[protowire.Number][]byte, map[protowire.Number]int64, error) {
	texts, numbers := make(map[protowire.Number][]byte), make(map[protowire.Number]int64)
	for len(body) > 0 {
		field, typ, n := protowire.ConsumeTag(body)
		if n < 0 {
			return nil, nil, errors.New("is no message")
		}
		body = body[n:]
		switch typ {
		case protowire.BytesType:
			texts[field], n = protowire.ConsumeBytes(body)
		case protowire.VarintType:
			var v uint64
			v, n = protowire.ConsumeVarint(body)
			numbers[field] = int64(v)
		default:
			n = protowire.ConsumeFieldValue(field, typ, body)
		}
		if n < 0 {
			return nil, nil, errors.New("is no message")
		}
		body = body[n:]
	}
	return texts, numbers, nil
}

func (d *decoder) bundle(body []byte) error {
	p := &types.Bundle{}
	if err := proto.Unmarshal(body, p); err != nil {
		return errors.New("is no bundle")
	}
	td, err := spiffeid.TrustDomainFromString(p.GetTrustDomain())
	if err != nil {
		return errors.New("is a bundle of no trust domain")
	}
	bundle := x509bundle.New(td)
	for _, authority := range p.GetX509Authorities() {
		cert, err := x509.ParseCertificate(authority.GetAsn1())
		if err != nil {
			return fmt.Errorf("an authority of %s can't be read", td)
		}
		bundle.AddX509Authority(cert)
		if authority.GetTainted() {
			d.state.Tainted = append(d.state.Tainted, cert)
		}
	}
	own := td == d.state.Agent.TrustDomain()
	switch {
	case len(p.GetX509Authorities()) == 0:
	case own:
		d.state.Bundle = bundle
	default:
		d.state.Federated[td] = bundle
	}
	return d.jwt(td, p.GetJwtAuthorities())
}

func (d *decoder) jwt(td spiffeid.TrustDomain, authorities []*types.JWTKey) error {
	var keys []jwtsvid.Key
	for _, p := range authorities {
		public, err := x509.ParsePKIXPublicKey(p.GetPublicKey())
		if err != nil || p.GetKeyId() == "" {
			return fmt.Errorf("a JWT key of %s can't be read", td)
		}
		key := jwtsvid.Key{ID: p.GetKeyId(), Public: public}
		if p.GetExpiresAt() != 0 {
			key.ExpiresAt = unixSeconds(p.GetExpiresAt())
		}
		keys = append(keys, key)
	}
	if len(keys) > 0 {
		d.state.JWT[td] = jwtsvid.NewBundle(td, keys...)
	}
	return nil
}
