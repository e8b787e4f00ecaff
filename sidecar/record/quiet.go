package record

import (
	"fmt"
	"strings"
)

// Quiet is which records are not logged, a set. The zero Quiet logs all.
type Quiet uint8

// The members, by ghostunnel's names.
const (
	QuietConnections     Quiet = 1 << iota // "conns": connections that were up
	QuietConnErrors                        // "conn-errs": those that failed outside of the handshake
	QuietHandshakeErrors                   // "handshake-errs": those that failed in it, or were refused
	// QuietAll leaves out every record. The caller silences the rest of the log.
	QuietAll = QuietConnections | QuietConnErrors | QuietHandshakeErrors
)

// ParseQuiet reads the values of ghostunnel's --quiet: all, conns, conn-errs,
// handshake-errs, or nothing. They are not split at commas.
func ParseQuiet(values []string) (Quiet, error) {
	var q Quiet
	for _, v := range values {
		switch v {
		case "":
		case "all":
			q |= QuietAll
		case "conns":
			q |= QuietConnections
		case "conn-errs":
			q |= QuietConnErrors
		case "handshake-errs":
			q |= QuietHandshakeErrors
		default:
			return 0, fmt.Errorf("%q is none of all, conns, conn-errs, handshake-errs%s", v, mend(v))
		}
	}
	return q, nil
}

func mend(v string) string {
	if strings.Contains(v, ",") {
		return ": repeat it for each"
	}
	return ""
}

// Mutes reports whether r is not to be logged. A connection that was up and then
// failed is both a connection and an error: it is left out only where both are.
func (q Quiet) Mutes(r *Record) bool {
	var needs Quiet
	switch {
	case q == 0:
		return false
	case r.Cause.handshake():
		needs = QuietHandshakeErrors
	case r.Cause.expected():
		needs = QuietConnections
	case r.Established():
		needs = QuietConnections | QuietConnErrors
	default:
		needs = QuietConnErrors
	}
	return q&needs == needs
}
