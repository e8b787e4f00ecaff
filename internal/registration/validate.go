package registration

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Limits on what an entry may hold; the first two are SPIRE's.
const (
	maxIDLength   = 255
	maxHintLength = 1024
	// maxSelectors bounds the work of matching one entry.
	maxSelectors = 1000
	maxDNSNames  = 1000
)

// reservedPrefix is the part of each trust domain that belongs to its issuers
// and agents; no workload may have an ID in it.
const reservedPrefix = "/spire/"

// Validate reports why e cannot be an entry of trust domain td, or nil. It does
// not look at other entries.
func (e Entry) Validate(td spiffeid.TrustDomain) error {
	if err := validateID(e.ID); err != nil {
		return err
	}
	if err := e.validateName(td); err != nil {
		return err
	}
	if err := memberWithPath(td, e.ParentID); err != nil {
		return fmt.Errorf("invalid parent ID: %w", err)
	}
	if err := e.validateSelectors(); err != nil {
		return err
	}
	if e.X509SVIDTTL < 0 || e.JWTSVIDTTL < 0 {
		return errors.New("invalid TTL: must be zero (the default) or positive")
	}
	if !e.ExpiresAt.IsZero() && e.ExpiresAt.Unix() < 0 {
		return errors.New("invalid expiry: must not be negative")
	}
	if len(e.DNSNames) > maxDNSNames {
		return fmt.Errorf("%d DNS names: at most %d", len(e.DNSNames), maxDNSNames)
	}
	for _, name := range e.DNSNames {
		if err := ValidateDNSName(name); err != nil {
			return fmt.Errorf("invalid DNS name %q: %w", name, err)
		}
	}
	if len(e.Hint) > maxHintLength {
		return fmt.Errorf("hint is too long: %d characters, at most %d", len(e.Hint), maxHintLength)
	}
	return nil
}

func (e Entry) validateName(td spiffeid.TrustDomain) error {
	if e.Template.IsZero() {
		if err := WorkloadID(td, e.SPIFFEID); err != nil {
			return fmt.Errorf("invalid spiffe ID: %w", err)
		}
		return nil
	}
	if err := e.validateTemplate(td); err != nil {
		return fmt.Errorf("ID template %s: %w", e.Template, err)
	}
	return nil
}

// validateTemplate refuses what must not go to whoever can choose a selector.
func (e Entry) validateTemplate(td spiffeid.TrustDomain) error {
	switch {
	case !e.SPIFFEID.IsZero():
		return errors.New("an entry has a template or a SPIFFE ID, not both")
	case e.Template.td != td:
		return fmt.Errorf("is not of trust domain %q", td.Name())
	case below(e.Template.Prefix(), "/spire"):
		return errors.New("path is in the reserved namespace")
	case e.ParentID.Path() == "/spire/server":
		return errors.New("an entry with a template cannot have the issuer for its parent")
	case e.Admin:
		return errors.New("an entry with a template cannot be admin")
	case e.Downstream:
		return errors.New("an entry with a template cannot be downstream")
	case e.StoreSVID:
		return errors.New("an entry with a template cannot have its SVIDs stored")
	case len(e.DNSNames) > 0:
		return errors.New("an entry with a template cannot have DNS names")
	}
	return nil
}

func (e Entry) validateSelectors() error {
	if len(e.Selectors) == 0 {
		return errors.New("selector list is empty")
	}
	if e.StoreSVID && e.DisableX509SVIDPrefetch {
		return errors.New("storing the SVID and not fetching it before use exclude each other")
	}
	if len(e.Selectors) > maxSelectors {
		return fmt.Errorf("%d selectors: at most %d", len(e.Selectors), maxSelectors)
	}
	for _, s := range e.Selectors {
		if err := s.validate(); err != nil {
			return fmt.Errorf("invalid selector %q: %w", s, err)
		}
		if e.StoreSVID && s.Type != e.Selectors[0].Type {
			return errors.New("selector types must be the same when store SVID is enabled")
		}
	}
	return nil
}

func validateID(id string) error {
	if len(id) > maxIDLength {
		return fmt.Errorf("entry ID is too long: %d characters, at most %d", len(id), maxIDLength)
	}
	for _, c := range []byte(id) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c == '-', c == '_', c == '.':
		default:
			return fmt.Errorf("entry ID %q: only letters, digits, '.', '_' and '-'", id)
		}
	}
	return nil
}

// WorkloadID reports why a workload of trust domain td cannot have id.
func WorkloadID(td spiffeid.TrustDomain, id spiffeid.ID) error {
	if err := memberWithPath(td, id); err != nil {
		return err
	}
	if id.Path() == "/spire" || strings.HasPrefix(id.Path(), reservedPrefix) {
		return fmt.Errorf("%q is not a workload in trust domain %q; path is in the reserved namespace", id, td.Name())
	}
	return nil
}

func memberWithPath(td spiffeid.TrustDomain, id spiffeid.ID) error {
	switch {
	case !id.MemberOf(td):
		return fmt.Errorf("%q is not a member of trust domain %q", id, td.Name())
	case id.Path() == "":
		return fmt.Errorf("%q: path cannot be empty", id)
	}
	return nil
}

// ValidateDNSName checks a DNS name label by label (RFC 1123, section 2.1), as
// it stands in a certificate: without a final dot. A first label "*" is allowed.
func ValidateDNSName(name string) error {
	if len(name) > 253 {
		return errors.New("longer than 253 characters")
	}
	labels := strings.Split(name, ".")
	for i, label := range labels {
		if label == "*" && i == 0 && len(labels) > 1 {
			continue
		}
		if err := validateLabel(label); err != nil {
			return err
		}
	}
	return nil
}

func validateLabel(label string) error {
	switch {
	case label == "":
		return errors.New("label is empty")
	case len(label) > 63:
		return fmt.Errorf("label %q is longer than 63 characters", label)
	case label[0] == '-' || label[len(label)-1] == '-':
		return fmt.Errorf("label %q begins or ends with '-'", label)
	}
	for _, c := range []byte(label) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return fmt.Errorf("label %q: only letters, digits, '-' and '_'", label)
		}
	}
	return nil
}
