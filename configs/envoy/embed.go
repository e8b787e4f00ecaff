// Package envoy owns the Envoy configurations that use Lanyard's secrets: the
// template of them all, which sds.Bootstrap fills in, and two results of it as
// samples. It does not check values: sds does.
package envoy

import _ "embed" // for the template

// Bootstrap is a text/template that makes an Envoy bootstrap configuration in
// YAML. Every value goes through its function "quote".
//
//go:embed bootstrap.yaml.tmpl
var Bootstrap string
