package keep

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/nodeagent/jwtsvid"
)

const (
	magic   = "lanyard agent workloads\n"
	version = 1
	// Limits of what is read: far above what an agent has.
	maxFile  = 1 << 30
	maxFrame = 4 << 20
)

// The kinds of frame. A head comes first and once, a sum last.
const (
	kindHead = iota + 1
	kindEntry
	kindBundle
	kindSVID
	kindSum
)

// The fields of a head and of an SVID.
const (
	headAgent = 1
	headSaved = 2 // Unix seconds

	svidEntry    = 1
	svidChain    = 2
	svidKey      = 3
	svidRotateAt = 4 // Unix milliseconds
	svidNotAfter = 5 // Unix seconds
)

// encode leaves out SVIDs that have expired when the state is saved.
func (s *State) encode() ([]byte, error) {
	out := append([]byte(magic), version)
	out = appendFrame(out, kindHead, appendUint(appendText(nil, headAgent, s.Agent.String()), headSaved, s.Saved.Unix()))
	var room []byte
	var err error
	for e := range s.Entries {
		if room, err = (proto.MarshalOptions{}).MarshalAppend(room[:0], e.Proto()); err != nil {
			return nil, fmt.Errorf("entry %s: %w", e.ID, err)
		}
		out = appendFrame(out, kindEntry, room)
	}
	for _, td := range s.domains() {
		p, err := s.bundle(td)
		if err == nil {
			room, err = (proto.MarshalOptions{}).MarshalAppend(room[:0], p)
		}
		if err != nil {
			return nil, fmt.Errorf("bundle of %s: %w", td, err)
		}
		out = appendFrame(out, kindBundle, room)
	}
	for _, one := range s.SVIDs {
		if s.Saved.Before(one.NotAfter) {
			out = appendFrame(out, kindSVID, one.encode())
		}
	}
	sum := sha256.Sum256(out)
	return appendFrame(out, kindSum, sum[:]), nil
}

func appendFrame(out []byte, kind byte, body []byte) []byte {
	out = append(out, kind)
	out = binary.BigEndian.AppendUint32(out, uint32(len(body)))
	return append(out, body...)
}

func appendText[T ~string | ~[]byte](out []byte, field protowire.Number, text T) []byte {
	out = protowire.AppendTag(out, field, protowire.BytesType)
	return protowire.AppendBytes(out, []byte(text))
}

func appendUint(out []byte, field protowire.Number, n int64) []byte {
	out = protowire.AppendTag(out, field, protowire.VarintType)
	return protowire.AppendVarint(out, uint64(n))
}

func (s SVID) encode() []byte {
	out := appendText(nil, svidEntry, s.EntryID)
	out = appendText(out, svidChain, s.Chain)
	out = appendText(out, svidKey, s.Key)
	out = appendUint(out, svidRotateAt, s.RotateAt.UnixMilli())
	return appendUint(out, svidNotAfter, s.NotAfter.Unix())
}

// domains are all that the state has bundles of, in order.
func (s *State) domains() []spiffeid.TrustDomain {
	domains := []spiffeid.TrustDomain{s.Agent.TrustDomain()}
	for td := range s.Federated {
		domains = append(domains, td)
	}
	for td := range s.JWT {
		domains = append(domains, td)
	}
	slices.SortFunc(domains, spiffeid.TrustDomain.Compare)
	return slices.Compact(domains)
}

func (s *State) bundle(td spiffeid.TrustDomain) (*types.Bundle, error) {
	p := &types.Bundle{TrustDomain: td.Name()}
	authorities := func(b *x509bundle.Bundle, tainted []*x509.Certificate) {
		if b == nil {
			return
		}
		for _, cert := range b.X509Authorities() {
			p.X509Authorities = append(p.X509Authorities, &types.X509Certificate{
				Asn1: cert.Raw, Tainted: slices.ContainsFunc(tainted, cert.Equal),
			})
		}
	}
	if td == s.Agent.TrustDomain() {
		authorities(s.Bundle, s.Tainted)
	} else {
		authorities(s.Federated[td], nil)
	}
	for _, key := range s.JWT[td].Keys() {
		one, err := encodeKey(key)
		if err != nil {
			return nil, err
		}
		p.JwtAuthorities = append(p.JwtAuthorities, one)
	}
	return p, nil
}

func encodeKey(key jwtsvid.Key) (*types.JWTKey, error) {
	der, err := x509.MarshalPKIXPublicKey(key.Public)
	if err != nil {
		return nil, fmt.Errorf("JWT key %q: %w", key.ID, err)
	}
	p := &types.JWTKey{KeyId: key.ID, PublicKey: der}
	if !key.ExpiresAt.IsZero() {
		p.ExpiresAt = key.ExpiresAt.Unix()
	}
	return p, nil
}

func unixSeconds(n int64) time.Time { return time.Unix(n, 0) }
