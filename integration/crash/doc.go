// Package crash kills the issuer in the middle of its writes, by strace, and looks at what is left: what was acknowledged is
// there, and what was not is absent or whole. It owns the calls that are made and what each must leave behind; it measures no
// time, and harms nothing but the issuers that it starts.
package crash
