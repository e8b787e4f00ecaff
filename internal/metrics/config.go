package metrics

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Config says who gets the metrics and how they are named. The zero Config collects nothing.
type Config struct {
	// Prometheus is the listener that is scraped; nil collects nothing.
	Prometheus *Listener
	// Prefix begins the names that SPIRE has too; "" is SPIRE's own: "spire_server" or "spire_agent".
	Prefix string
	// TrustDomainLabel and HostnameLabel give each metric a label trust_domain or host.
	TrustDomainLabel, HostnameLabel bool
	// Filter says which of them are told.
	Filter Filter
}

// Filter chooses by the beginnings of names, with dots between their words as SPIRE writes them ("spire_server.rpc"), and by
// labels. The longest beginning that fits a name decides; a name that none fits is told. If labels are allowed, all others
// are left out.
type Filter struct {
	AllowedPrefixes, BlockedPrefixes []string
	AllowedLabels, BlockedLabels     []string
}

// Listener is where metrics are served, at any path.
type Listener struct {
	Host string // "" is localhost
	Port int    // 0 is any that is free
	TLS  *TLS   // nil serves plain HTTP
}

// ListenAddress is host:port to bind.
func (l Listener) ListenAddress() string {
	return net.JoinHostPort(cmp.Or(l.Host, "localhost"), strconv.Itoa(l.Port))
}

// TLS says how the listener identifies itself and whom it answers.
type TLS struct {
	CertFile, KeyFile string // PEM; read again when they change
	ClientCAFile      string // PEM; clients then need a certificate by one of them
	UseSVID           bool   // instead of the files: the role's own X.509-SVID
	// AuthorizedIDs are the clients answered, by their X.509-SVIDs; none asks for no certificate.
	AuthorizedIDs []spiffeid.ID
}

// Validate reports everything that is wrong, by the keys of telemetry { Prometheus {} }. It looks at nothing outside it.
func (c Config) Validate() error {
	if c.Prometheus == nil {
		return nil
	}
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if p := c.Prometheus.Port; p < 0 || p > 65535 {
		wrong("port %d: want 1 to 65535, or 0 for any that is free", p)
	}
	t := c.Prometheus.TLS
	if t == nil {
		return errors.Join(errs...)
	}
	switch files := t.CertFile != "" || t.KeyFile != ""; {
	case t.UseSVID && files:
		wrong("tls: use_spire_svid goes without cert_file and key_file: remove one or the other")
	case !t.UseSVID && (t.CertFile == "" || t.KeyFile == ""):
		wrong("tls: wants both cert_file and key_file, or use_spire_svid = true")
	}
	if len(t.AuthorizedIDs) > 0 && t.ClientCAFile != "" {
		wrong("tls: client_ca_file and authorized_spiffe_ids exclude each other: clients are verified with one or with their trust domains' bundles")
	}
	return errors.Join(errs...)
}
