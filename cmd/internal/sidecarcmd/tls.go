package sidecarcmd

import (
	"crypto/tls"
	"slices"
	"strings"

	"github.com/lanyard-mtls/lanyard/internal/cli/suggest"
	"github.com/lanyard-mtls/lanyard/sidecar/setting"
)

// cipherGroups are ghostunnel's groups of cipher suites. Those of TLS 1.3 are Go's to choose.
func cipherGroups() map[string][]uint16 {
	return map[string][]uint16{
		"AES": {
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		},
		"CHACHA":    {tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256},
		unsafeAzure: {tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256},
	}
}

// unsafeAzure is the group that has to be allowed first.
const unsafeAzure = "UNSAFE-AZURE"

// cipherSuites gives the suites of groups, for TLS 1.2. unsafe permits all groups.
func cipherSuites(groups []string, unsafe bool) ([]uint16, []error) {
	var suites []uint16
	var errs []error
	accepted := []string{"AES", "CHACHA"}
	if unsafe {
		accepted = append(accepted, unsafeAzure)
	}
	for _, name := range groups {
		name = strings.TrimSpace(name)
		if slices.Contains(accepted, name) {
			suites = append(suites, cipherGroups()[name]...)
			continue
		}
		given, mend := name, "accepted: "+strings.Join(accepted, ", ")
		if near := suggest.Closest(strings.ToUpper(name), accepted); near != "" {
			mend = "did you mean " + near + "?"
		}
		if name == unsafeAzure {
			mend = "that is a weak one, to be allowed first (allow_unsafe_cipher_suites)"
		}
		if given == "" {
			given = `""`
		}
		errs = append(errs, setting.Errorf("cipher_suites", given, "no group of cipher suites; %s", mend))
	}
	return suites, errs
}

// tlsVersion reads a version in any case; "" is the highest.
func tlsVersion(s string) (uint16, error) {
	switch strings.ToUpper(s) {
	case "":
		return 0, nil
	case "TLS1.2":
		return tls.VersionTLS12, nil
	case "TLS1.3":
		return tls.VersionTLS13, nil
	}
	return 0, setting.Errorf("max_version", s, "give TLS1.2 or TLS1.3")
}
