package policy

// Config is the rules of one tunnel. Any rule that allows is enough, except that a match of DenyURIs beats them all.
// AllowAll, DisableAuthentication and Pins stand alone.
type Config struct {
	// AllowAll allows every peer with a valid certificate.
	AllowAll bool
	// DisableAuthentication asks clients for no certificate: everyone who reaches the listener is allowed.
	DisableAuthentication bool

	// AllowCNs, AllowOUs and AllowDNSNames are names in the certificate: the subject's common name, one of its
	// organizational units, one of its DNS names. They are compared byte by byte; nothing in them is a wildcard. Of SVIDs,
	// only those of the own trust domain can match: another's authorities may write any name. So it is with AllowIPs.
	AllowCNs, AllowOUs, AllowDNSNames []string
	// AllowIPs are addresses among the certificate's IP names, compared by value: ::ffff:192.0.2.1 is 192.0.2.1.
	AllowIPs []string
	// AllowTrustDomains allow every SPIFFE ID of these trust domains.
	AllowTrustDomains []string
	// OwnTrustDomain allows every SPIFFE ID of this end's own trust domain.
	OwnTrustDomain bool
	// AllowURIs are patterns of the SPIFFE ID, or of any URI name of a certificate that is no SVID.
	AllowURIs []string
	// DenyURIs are patterns of the same kind. A match refuses the peer, whatever else allows it.
	DenyURIs []string
	// Rego is asked when no other rule allowed the peer. The zero value is none.
	Rego Rego

	// Pins are hashes of the peer's public key, ALGO:BASE64: sha256, sha384 or sha512 of the SubjectPublicKeyInfo. They
	// replace the verification of the certificate, so nothing else in it counts.
	Pins []string

	// The rest is no setting of its own: the sidecar fills it in from the tunnel.

	// Direction is Inbound or Outbound; empty is Inbound.
	Direction string
	// Wide reads AllowURIs as ghostunnel does: patterns that name no trust domain, such as ** and spiffe://*/web, match the
	// IDs of every one that there is a bundle of, and patterns that can match nothing are taken. Otherwise such patterns
	// match the own trust domain alone (others go into AllowTrustDomains), and what can match nothing is an error. Names and
	// addresses match SVIDs of every trust domain, too.
	Wide bool
	// HostName says that a certificate is accepted for the server's host name alone, so that an outbound tunnel needs no
	// rule: identities of files, without SPIFFE bundles.
	HostName bool
}
