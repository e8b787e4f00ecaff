package workload

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

var (
	// ErrNoIdentity is wrapped by every error that says why no SVID is held.
	ErrNoIdentity = errors.New("no identity yet")
	// ErrExpired is wrapped when the SVID held has run out.
	ErrExpired = errors.New("the identity held has expired")
)

// Select returns the SVID of id, or the first one if id is zero, as long as it
// is valid at now. The error says what is missing and wraps ErrNoIdentity or
// ErrExpired.
func (s State) Select(id spiffeid.ID, now time.Time) (*x509svid.SVID, error) {
	if s.Context == nil {
		if s.Err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoIdentity, s.Err)
		}
		return nil, ErrNoIdentity
	}
	svid := s.Context.Default()
	if !id.IsZero() {
		svid = s.Context.Find(id)
	}
	if svid == nil {
		return nil, fmt.Errorf("%w: the Workload API offers %s, not %s", ErrNoIdentity, offered(s.Context), id)
	}
	if notAfter := svid.Certificates[0].NotAfter; now.After(notAfter) {
		return nil, fmt.Errorf("%w: %s ended at %s", ErrExpired, svid.ID, notAfter.UTC().Format(time.RFC3339))
	}
	return svid, nil
}

func offered(c *X509Context) string {
	var ids []string
	for _, svid := range c.SVIDs {
		if len(ids) == 5 {
			ids = append(ids, fmt.Sprintf("%d more", len(c.SVIDs)-5))
			break
		}
		ids = append(ids, svid.ID.String())
	}
	return strings.Join(ids, ", ")
}
