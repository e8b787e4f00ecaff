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

// Choice says which of several SVIDs is meant. The zero value is the first one offered, as SPIFFE Workload API, section
// 5.2.1, has it.
type Choice struct {
	// ID is the SPIFFE ID; zero is any.
	ID spiffeid.ID
	// Hint is what the issuer's operator calls it (section 5.2.1); empty is any.
	Hint string
}

// String names the choice as an error needs it.
func (c Choice) String() string {
	switch {
	case c.Hint == "" && c.ID.IsZero():
		return "any"
	case c.Hint == "":
		return c.ID.String()
	case c.ID.IsZero():
		return fmt.Sprintf("hint %q", c.Hint)
	default:
		return fmt.Sprintf("%s with hint %q", c.ID, c.Hint)
	}
}

func (c Choice) matches(svid *x509svid.SVID) bool {
	return (c.ID.IsZero() || svid.ID == c.ID) && (c.Hint == "" || svid.Hint == c.Hint)
}

// Select returns the first SVID that is meant, as long as it is valid at now. The error says what is missing and wraps
// ErrNoIdentity or ErrExpired.
func (s State) Select(want spiffeid.ID, now time.Time) (*x509svid.SVID, error) {
	return s.Choose(Choice{ID: want}, now)
}

// Choose is Select for a choice by more than the SPIFFE ID.
func (s State) Choose(want Choice, now time.Time) (*x509svid.SVID, error) {
	if s.Context == nil {
		if s.Err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoIdentity, s.Err)
		}
		return nil, ErrNoIdentity
	}
	svid := s.Context.choose(want)
	if svid == nil {
		return nil, fmt.Errorf("%w: the Workload API offers %s, not %s", ErrNoIdentity, offered(s.Context), want)
	}
	if notAfter := svid.Certificates[0].NotAfter; now.After(notAfter) {
		return nil, fmt.Errorf("%w: %s ended at %s", ErrExpired, svid.ID, notAfter.UTC().Format(time.RFC3339))
	}
	return svid, nil
}

func (c *X509Context) choose(want Choice) *x509svid.SVID {
	for _, svid := range c.SVIDs {
		if want.matches(svid) {
			return svid
		}
	}
	return nil
}

func offered(c *X509Context) string {
	var ids []string
	for _, svid := range c.SVIDs {
		if len(ids) == 5 {
			ids = append(ids, fmt.Sprintf("%d more", len(c.SVIDs)-5))
			break
		}
		ids = append(ids, Choice{ID: svid.ID, Hint: svid.Hint}.String())
	}
	return strings.Join(ids, ", ")
}
