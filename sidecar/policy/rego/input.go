package rego

import (
	"crypto/x509"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/lanyard-mtls/lanyard/sidecar/policy"
)

// document is what a policy sees as input. Its certificate is ghostunnel's, to the byte: crypto/x509's Certificate in JSON,
// names of Go's fields, so that policies written for it go on to work. The rest is ours; what is not known is "".
type document struct {
	Certificate   *x509.Certificate `json:"certificate"` // null if the peer showed none
	SPIFFEID      string            `json:"spiffe_id"`   // verified
	OwnSPIFFEID   string            `json:"own_spiffe_id"`
	Tunnel        string            `json:"tunnel"`
	Direction     string            `json:"direction"`      // inbound or outbound
	ServerName    string            `json:"server_name"`    // SNI
	ClientAddress string            `json:"client_address"` // of the end that connected
	Listen        string            `json:"listen"`         // as configured, like target
	Target        string            `json:"target"`
}

// input is the document for r. The error is crypto/x509's and encoding/json's, who do not promise that every certificate
// goes into JSON.
func input(r policy.Request) (ast.Value, error) {
	d := document{Certificate: r.Certificate, Tunnel: r.Tunnel, Direction: r.Direction, ServerName: r.ServerName,
		ClientAddress: r.ClientAddr, Listen: r.Listen, Target: r.Target}
	if !r.Peer.IsZero() {
		d.SPIFFEID = r.Peer.String()
	}
	if !r.Own.IsZero() {
		d.OwnSPIFFEID = r.Own.String()
	}
	return ast.InterfaceToValue(d)
}
