// Package configs owns the samples of the roles' configuration files, which the binaries print. What is in bad/ is there to
// be refused, each file with what must be said of it.
package configs

import _ "embed" // for the samples

// The samples, commented, and tested by validating them.
var (
	//go:embed issuer.hcl
	Issuer string
	//go:embed agent.hcl
	Agent string
	//go:embed sidecar.hcl
	Sidecar string
)
