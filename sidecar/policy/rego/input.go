package rego

import (
	"crypto/x509"
	"encoding/json"
	"reflect"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/lanyard-mtls/lanyard/sidecar/policy"
)

// input is the document that a policy sees for r. Its certificate is ghostunnel's: crypto/x509's Certificate as
// encoding/json writes it, with the names of Go's fields, so that policies written for ghostunnel go on to work. The rest is
// ours; what is not known is "".
//
// It turns into OPA's values piece by piece as the policy looks: most look at two or three fields, and a certificate has
// sixty. A field that does not go into JSON panics when looked at.
func input(r policy.Request) ast.Value {
	document := map[string]any{
		"certificate":    nil, // the peer showed none
		"spiffe_id":      "",  // verified
		"own_spiffe_id":  "",
		"tunnel":         r.Tunnel,
		"direction":      r.Direction,  // inbound or outbound
		"server_name":    r.ServerName, // SNI
		"client_address": r.ClientAddr, // of the end that connected
		"listen":         r.Listen,     // as configured, like target
		"target":         r.Target,
	}
	if r.Certificate != nil {
		document["certificate"] = fields(r.Certificate)
	}
	if !r.Peer.IsZero() {
		document["spiffe_id"] = r.Peer.String()
	}
	if !r.Own.IsZero() {
		document["own_spiffe_id"] = r.Own.String()
	}
	return ast.LazyObject(document)
}

// fields are c's, by name.
func fields(c *x509.Certificate) map[string]any {
	v := reflect.ValueOf(c).Elem()
	out := make(map[string]any, v.NumField())
	for i := range v.NumField() {
		if f := v.Type().Field(i); f.IsExported() {
			out[f.Name] = field{v.Field(i).Interface()}
		}
	}
	return out
}

// field goes through encoding/json, whatever its type is: OPA has ways of its own with some types, such as a nil slice.
type field struct{ value any }

// MarshalJSON implements json.Marshaler.
func (f field) MarshalJSON() ([]byte, error) { return json.Marshal(f.value) }
