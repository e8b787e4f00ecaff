package registration

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Entry says that a caller below ParentID which has all the Selectors is given
// SPIFFEID. The slices of an Entry are shared between copies: replace, never
// modify them.
type Entry struct {
	// ID identifies the entry; UUIDv4 unless its creator chose another.
	ID string
	// SPIFFEID is zero in an entry with a Template; an instance of such an entry
	// has the SPIFFEID instead of the Template.
	SPIFFEID spiffeid.ID
	// Template is zero in all entries but those whose SPIFFE ID is made from
	// the workload's selectors.
	Template Template
	// ParentID is the agent (or node alias, or issuer) whose callers it is for.
	ParentID  spiffeid.ID
	Selectors []Selector
	// X509SVIDTTL and JWTSVIDTTL are whole seconds; 0 is the issuer's default.
	X509SVIDTTL time.Duration
	JWTSVIDTTL  time.Duration
	// FederatesWith may name trust domains whose bundle is not known yet.
	FederatesWith []spiffeid.TrustDomain
	Admin         bool
	Downstream    bool
	StoreSVID     bool
	// ExpiresAt has whole seconds; zero is never.
	ExpiresAt time.Time
	DNSNames  []string
	// Revision starts at 0 and grows by one with each update.
	Revision int64
	// CreatedAt has whole seconds.
	CreatedAt               time.Time
	Hint                    string
	DisableX509SVIDPrefetch bool
	JWTSVIDIncludeJTI       bool
}

// Expired reports whether the entry has an expiry that is not after now. It
// compares seconds: a [time.Time] wraps around at the largest ones, with which
// clients mean "never", and would come before now.
func (e Entry) Expired(now time.Time) bool {
	return !e.ExpiresAt.IsZero() && now.Unix() >= e.ExpiresAt.Unix()
}

// Key identifies what no two entries may share: SPIFFE ID or template, parent ID
// and the exact set of selectors, in 27 characters that URLs allow.
func (e Entry) Key() string {
	sum := e.Sum()
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Sum is the same as Key: the first 160 bits of a SHA-256.
func (e Entry) Sum() [20]byte {
	var room [512]byte
	buf := appendText(room[:0], e.Name())
	buf = appendText(buf, e.ParentID.String())
	for _, s := range SortedSelectors(e.Selectors) {
		buf = appendText(buf, s.Type)
		buf = appendText(buf, s.Value)
	}
	sum := sha256.Sum256(buf)
	return [20]byte(sum[:20])
}

// appendText puts the length in front, so that no two different lists are the
// same bytes.
func appendText(buf []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint64(buf, uint64(len(s))), s...)
}
