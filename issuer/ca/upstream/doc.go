// Package upstream owns the authorities above an issuer: a certificate and key
// in PEM files, and a parent SPIRE server or Lanyard issuer. It does not decide
// when an authority is made, nor what becomes of the roots it reports.
package upstream
