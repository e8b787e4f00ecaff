package identity

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Config says where an identity comes from: exactly one of a Workload API, a keystore, certificate files, ACME and None.
// It is data only.
type Config struct {
	// WorkloadAPI is its URI, unix:///PATH or tcp://IP:PORT. SPIFFEID and Hint pick one of several SVIDs; zero means the
	// first one offered.
	WorkloadAPI string
	SPIFFEID    spiffeid.ID
	Hint        string

	// Keystore is a file with certificate and private key: combined PEM, PKCS#12 or JCEKS. StorePass is its password.
	Keystore, StorePass string

	// Cert and Key are PEM files: the chain, leaf first, and its private key.
	Cert, Key string
	// CACert is a PEM file with the authorities that peers are verified against; empty is the system's. It goes with
	// keystores, files, ACME and None.
	CACert string
	// TrustBundles are files with the authorities of trust domains, PEM or SPIFFE bundles (JWKS), by trust domain. They
	// make the certificate, which must be an X.509-SVID then, and those of the peers SVIDs: verified by SPIFFE ID against
	// the bundle of their own trust domain, never by host name. They take CACert's place.
	TrustBundles map[string]string

	// PKCS11 is where the private key of Cert, or of the PEM file Keystore, is, if it is not in a file.
	PKCS11 PKCS11
	// ACME gets the certificate from an authority.
	ACME ACME

	// None shows no certificate. With WorkloadAPI, CACert or TrustBundles, these still verify peers.
	None bool

	// Watch reads files again when they change.
	Watch bool
}

// PKCS11 is a private key in a PKCS#11 module, that of the certificate's public key. The zero value is none.
type PKCS11 struct {
	Module     string // the shared library
	TokenLabel string
	PIN        string
}

// ACME is an account with a certificate authority (RFC 8555). The zero value is none.
type ACME struct {
	FQDN       string // what the certificate is for
	Email      string
	AgreeToTOS bool
	// CA and TestCA are directory URLs. TestCA is asked instead of CA if it is set; with neither, it is Let's Encrypt.
	CA, TestCA string
	// Storage is the folder for account and certificate; empty is $XDG_DATA_HOME/certmagic, or ~/.local/share/certmagic.
	Storage string
	// RenewCheckInterval is how often it is looked whether the certificate has to be renewed; 0 is 10 minutes.
	RenewCheckInterval time.Duration
	// AltTLSALPNPort is the port that the authority's challenge comes in on, if something maps it; 0 is 443.
	AltTLSALPNPort int
}

// SourceKey is the same for two configurations exactly if they can share one Source. It reveals no secret.
func (c Config) SourceKey() string {
	data, err := json.Marshal(c)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// spiffe reports whether peers are verified by SPIFFE ID.
func (c Config) spiffe() bool { return c.WorkloadAPI != "" || len(c.TrustBundles) > 0 }

// Deps are what a Source needs of the world. PKCS11 and ACME come from libraries that not every build links.
type Deps struct {
	Log *slog.Logger     // nil discards
	Now func() time.Time // nil is time.Now
	// PKCS11 opens the key of a public key. It is nil in builds without it. A Signer that is an io.Closer is closed when
	// the Source's Run ends.
	PKCS11 func(PKCS11, crypto.PublicKey) (crypto.Signer, error)
	// ACME prepares to get a certificate. It is nil in builds without it.
	ACME func(ACME, *slog.Logger) (Obtainer, error)
}

// Obtainer gets a certificate from an authority, and renews it.
type Obtainer interface {
	// Run obtains and renews until ctx ends, and then returns nil. It hands each certificate to update. An error means
	// that there never was one, and it gave up.
	Run(ctx context.Context, update func(*tls.Certificate)) error
	// Challenge returns the certificate that answers an authority's probe (RFC 8737), at any time.
	Challenge(*tls.ClientHelloInfo) (*tls.Certificate, error)
}

func (d Deps) withDefaults() Deps {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	return d
}
