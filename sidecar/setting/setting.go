// Package setting owns how the sidecar says which of its settings is wrong: by the setting's name, for a command line or a
// file to point at in its own words. It does not judge settings.
package setting

import (
	"errors"
	"fmt"
	"strings"
)

// Error says that one setting is wrong, and what would mend it.
type Error struct {
	// Tunnel is the tunnel the setting belongs to; empty for the only one, and for what all share.
	Tunnel string
	// Key is the setting's name as in a configuration file, such as "listen".
	Key string
	// Value is what was given; empty if nothing was, or if it is a secret.
	Value string
	// Problem is what is wrong with it, and the mend.
	Problem string
	// Err is what the problem comes from; it may be nil, and is not printed.
	Err error
}

// Errorf returns an Error about key and its value. An error among args that the format wraps with %w is its Err.
func Errorf(key, value, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Key: key, Value: value, Problem: err.Error(), Err: errors.Unwrap(err)}
}

// Error implements error: the tunnel, the key, its value, and the problem.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Tunnel != "" {
		fmt.Fprintf(&b, "tunnel %q: ", e.Tunnel)
	}
	b.WriteString(e.Key)
	if e.Value != "" {
		b.WriteString(" " + e.Value)
	}
	b.WriteString(": " + e.Problem)
	return b.String()
}

// Unwrap returns what the problem comes from.
func (e *Error) Unwrap() error { return e.Err }

// In returns err with the tunnel put into each Error in it that has none. Errors joined in err stay joined.
func In(tunnel string, err error) error {
	var out []error
	for _, err := range All(err) {
		if e, ok := err.(*Error); ok && e.Tunnel == "" {
			in := *e
			in.Tunnel = tunnel
			err = &in
		}
		out = append(out, err)
	}
	return errors.Join(out...)
}

// All returns the errors that are joined in err, each by itself; nothing if err is nil.
func All(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, err := range joined.Unwrap() {
		all = append(all, All(err)...)
	}
	return all
}
