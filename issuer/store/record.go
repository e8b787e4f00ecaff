package store

import (
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

func encode(m proto.Message) (string, error) {
	data, err := proto.Marshal(m)
	return string(data), err
}

func encodeEntry(e registration.Entry) (string, error) {
	return encodeBounded("entry "+e.ID, e.Proto())
}

// encodeBounded encodes what must fit an answer.
func encodeBounded(what string, m proto.Message) (string, error) {
	data, err := encode(m)
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	if len(data) > MaxRecordBytes {
		return "", fmt.Errorf("%s: %w: %d bytes, at most %d", what, ErrTooLarge, len(data), MaxRecordBytes)
	}
	return data, nil
}

// decodeEntry reads the record of entry id. A record under another's key is as
// bad as one that cannot be read.
func decodeEntry(id string, data []byte) (registration.Entry, error) {
	return decodeNext(new(registration.Decoder), id, data)
}

// decodeNext is decodeEntry for many entries in a row, which share memory.
func decodeNext(d *registration.Decoder, id string, data []byte) (registration.Entry, error) {
	e, err := d.Entry(data)
	if err != nil {
		return registration.Entry{}, fmt.Errorf("record of entry %s: %w", id, err)
	}
	if e.ID != id {
		return registration.Entry{}, fmt.Errorf("record of entry %s: holds entry %q", id, e.ID)
	}
	return e, nil
}

func decodeAgent(id string, data []byte) (*storepb.Agent, error) {
	a := &storepb.Agent{}
	if err := proto.Unmarshal(data, a); err != nil {
		return nil, fmt.Errorf("record of agent %s: %w", id, err)
	}
	if a.SpiffeId != id {
		return nil, fmt.Errorf("record of agent %s: holds agent %q", id, a.SpiffeId)
	}
	if _, err := spiffeid.FromString(id); err != nil {
		return nil, fmt.Errorf("record of agent %s: %w", id, err)
	}
	return a, nil
}

func decodeBundle(td spiffeid.TrustDomain, data []byte) (*types.Bundle, error) {
	b := &types.Bundle{}
	if err := proto.Unmarshal(data, b); err != nil {
		return nil, fmt.Errorf("record of the bundle: %w", err)
	}
	if b.TrustDomain != td.Name() {
		return nil, fmt.Errorf("record of the bundle: is of trust domain %q, not %q", b.TrustDomain, td.Name())
	}
	return b, nil
}

func decodeRelationship(td spiffeid.TrustDomain, data []byte) (*types.FederationRelationship, error) {
	r := &types.FederationRelationship{}
	if err := proto.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("record of the relationship with %s: %w", td.Name(), err)
	}
	if r.TrustDomain != td.Name() {
		return nil, fmt.Errorf("record of the relationship with %s: is with trust domain %q", td.Name(), r.TrustDomain)
	}
	return r, nil
}

// decodeFederated reads what lies under the name of another trust domain. A
// bundle bound to any other would let that one speak for it.
func decodeFederated[M any](s *Store, name string, data []byte, decode func(spiffeid.TrustDomain, []byte) (M, error)) (none M, _ error) {
	td, err := s.foreign(name)
	if err != nil {
		return none, err
	}
	return decode(td, data)
}

func decodeAuthority(id string, data []byte) (*storepb.X509Authority, error) {
	a := &storepb.X509Authority{}
	if err := proto.Unmarshal(data, a); err != nil {
		return nil, fmt.Errorf("record of authority %s: %w", id, err)
	}
	if a.AuthorityId != id {
		return nil, fmt.Errorf("record of authority %s: holds authority %q", id, a.AuthorityId)
	}
	return a, nil
}
