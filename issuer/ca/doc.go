// Package ca owns the issuer's signing authorities: their keys and
// certificates, when each is prepared, signs and is retired, and the profile of
// every certificate they sign. It does not decide who is given an SVID, and it
// keeps its records and the bundle in a [Journal] that it does not own.
//
// DESIGN.md beside this file defends the choices.
package ca
