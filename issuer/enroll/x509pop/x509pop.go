// Package x509pop owns the issuer's side of the x509pop node attestation as it
// is configured: which authorities count, within which limits, and what agents
// are called. The messages are in internal/nodeattest/x509pop.
package x509pop

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
	"github.com/lanyard-mtls/lanyard/internal/nodeattest/x509pop"
	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/issuer/enroll"
	"github.com/lanyard-mtls/lanyard/issuer/enroll/agentpath"
)

// The values of mode.
const (
	// ModeExternalPKI verifies with the authorities of files.
	ModeExternalPKI = "external_pki"
	// ModeSPIFFE verifies X509-SVIDs of the trust domain itself.
	ModeSPIFFE = "spiffe"
)

// Config is SPIRE's plugin_data; zero values are its defaults.
type Config struct {
	TrustDomain spiffeid.TrustDomain
	// Mode is ModeExternalPKI, as "" is, or ModeSPIFFE.
	Mode string
	// CABundlePaths are PEM files (ca_bundle_path, ca_bundle_paths); of
	// ModeExternalPKI, which needs one. They are read by New.
	CABundlePaths []string
	// SPIFFEPrefix begins the paths of SVIDs that may join (spiffe_prefix); ""
	// is /spire-exchange/. Of ModeSPIFFE.
	SPIFFEPrefix string
	// Bundle returns the trust domain's own; ModeSPIFFE needs it.
	Bundle func() (*x509bundle.Bundle, error)
	// AgentPathTemplate makes the agents' paths; "" is /x509pop/FINGERPRINT, and
	// in ModeSPIFFE /x509pop/ and the SVID's path without the prefix.
	AgentPathTemplate string
	// MaxIntermediates and MaxRSABits (max_rsa_key_size) bound what agents show;
	// 0 is 4 and 8192.
	MaxIntermediates, MaxRSABits int
	// VerifyClientIP wants the agent's address among the leaf's IP addresses.
	VerifyClientIP bool
}

// Method verifies agents. It is safe for concurrent use.
type Method struct {
	cfg    Config
	limits x509pop.Limits
	roots  *x509.CertPool
	path   *agentpath.Template
}

// New reads the files that cfg names and reports all that is wrong with it.
func New(cfg Config) (*Method, error) {
	m := &Method{cfg: cfg, limits: x509pop.DefaultLimits()}
	var errs []error
	for _, limit := range []struct {
		name string
		set  int
		into *int
	}{{"max_intermediates", cfg.MaxIntermediates, &m.limits.Intermediates}, {"max_rsa_key_size", cfg.MaxRSABits, &m.limits.RSABits}} {
		if limit.set < 0 {
			errs = append(errs, fmt.Errorf("%s must be greater than 0, not %d", limit.name, limit.set))
		} else if limit.set > 0 {
			*limit.into = limit.set
		}
	}
	template := "/{{ .PluginName }}/{{ .Fingerprint }}"
	switch cfg.Mode {
	case "", ModeExternalPKI:
		m.cfg.Mode = ModeExternalPKI
		var err error
		m.roots, err = readRoots(cfg.CABundlePaths)
		errs = append(errs, err)
	case ModeSPIFFE:
		template = "/{{ .PluginName }}/{{ .SVIDPathTrimmed }}"
		errs = append(errs, m.checkSPIFFE())
	default:
		errs = append(errs, fmt.Errorf("mode %q: want %s or %s", cfg.Mode, ModeExternalPKI, ModeSPIFFE))
	}
	if cfg.AgentPathTemplate != "" {
		template = cfg.AgentPathTemplate
	}
	var err error
	m.path, err = agentpath.Parse(template)
	return m, errors.Join(append(errs, err)...)
}

func (m *Method) checkSPIFFE() error {
	if m.cfg.SPIFFEPrefix == "" {
		m.cfg.SPIFFEPrefix = "/spire-exchange/"
	}
	if !strings.HasSuffix(m.cfg.SPIFFEPrefix, "/") {
		m.cfg.SPIFFEPrefix += "/"
	}
	switch {
	case len(m.cfg.CABundlePaths) > 0:
		return errors.New("ca_bundle_path and ca_bundle_paths cannot be used in spiffe mode: the trust domain's own bundle counts")
	case !strings.HasPrefix(m.cfg.SPIFFEPrefix, "/"):
		return fmt.Errorf("spiffe_prefix %q must begin with /", m.cfg.SPIFFEPrefix)
	case m.cfg.Bundle == nil:
		return errors.New("spiffe mode needs the trust domain's bundle")
	}
	return nil
}

// templateData is what a template sees: SPIRE's fields, those of the leaf
// ([x509.Certificate]) among them.
type templateData struct {
	*x509.Certificate
	SerialNumberHex string
	Fingerprint     string
	PluginName      string
	TrustDomain     string
	SVIDPathTrimmed string
	URISanSelectors map[string]string
}

// Attest verifies the chain before it asks for a proof of the leaf's key.
func (m *Method) Attest(ctx context.Context, c enroll.Conversation) (none enroll.Evidence, _ error) {
	chain, err := x509pop.ParsePayload(c.Payload, m.limits)
	if err != nil {
		return none, enroll.Malformed(err)
	}
	trimmed, chains, err := m.verify(chain, c)
	if err != nil {
		return none, err
	}
	if m.cfg.VerifyClientIP {
		if err := checkPeer(chain.Leaf, c.Peer); err != nil {
			return none, err
		}
	}
	if err := prove(ctx, chain.Leaf, c); err != nil {
		return none, err
	}
	sans := x509pop.URISANs(chain.Leaf, m.cfg.TrustDomain)
	id, err := m.path.AgentID(m.cfg.TrustDomain, templateData{
		Certificate:     chain.Leaf,
		SerialNumberHex: x509pop.SerialHex(chain.Leaf.SerialNumber),
		Fingerprint:     x509pop.Fingerprint(chain.Leaf),
		PluginName:      nodeattest.X509POP,
		TrustDomain:     m.cfg.TrustDomain.Name(),
		SVIDPathTrimmed: trimmed,
		URISanSelectors: sans,
	})
	if err != nil {
		return none, fmt.Errorf("failed to make spiffe id: %w", err)
	}
	var selectors []registration.Selector
	for _, value := range x509pop.SelectorValues(chain.Leaf, chains, sans) {
		selectors = append(selectors, registration.Selector{Type: nodeattest.X509POP, Value: value})
	}
	return enroll.Evidence{ID: id, Selectors: selectors, Reattestable: true}, nil
}

// verify returns the chains to an authority that counts, and what is left of an
// SVID's path.
func (m *Method) verify(chain x509pop.Chain, c enroll.Conversation) (trimmed string, chains [][]*x509.Certificate, err error) {
	if m.cfg.Mode == ModeExternalPKI {
		chains, err = chain.Verify(m.roots, c.Now)
		if err != nil {
			return "", nil, enroll.Refused(err)
		}
		return "", chains, nil
	}
	bundle, err := m.cfg.Bundle()
	if err != nil {
		return "", nil, fmt.Errorf("failed to get trust bundle: %w", err)
	}
	id, chains, err := chain.VerifySVID(bundle, c.Now)
	if err != nil {
		return "", nil, enroll.Refused(err)
	}
	trimmed, ok := strings.CutPrefix(id.Path(), m.cfg.SPIFFEPrefix)
	if !ok {
		return "", nil, enroll.Refused(fmt.Errorf("x509 cert doesnt match SVID prefix: %s is not below %s", id, m.cfg.SPIFFEPrefix))
	}
	return trimmed, chains, nil
}

func checkPeer(leaf *x509.Certificate, peer netip.Addr) error {
	if !peer.IsValid() {
		return errors.New("client IP not available for verification")
	}
	peer = peer.Unmap().WithZone("")
	for _, ip := range leaf.IPAddresses {
		if addr, ok := netip.AddrFromSlice(ip); ok && addr.Unmap() == peer {
			return nil
		}
	}
	return enroll.Refused(fmt.Errorf("client IP %s does not match any certificate IP SAN", peer))
}

func prove(ctx context.Context, leaf *x509.Certificate, c enroll.Conversation) error {
	challenge, err := x509pop.NewChallenge(leaf)
	if err != nil {
		return enroll.Refused(fmt.Errorf("unable to generate challenge: %w", err))
	}
	message, err := challenge.Message()
	if err != nil {
		return err
	}
	response, err := c.Challenge(ctx, message)
	if err != nil {
		return err
	}
	if err := challenge.Verify(response); err != nil {
		return enroll.Refused(fmt.Errorf("challenge response verification failed: %w", err))
	}
	return nil
}
