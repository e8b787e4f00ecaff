// Package workloadattest owns who calls on a UNIX socket: it pins the calling
// process by a pidfd when the connection is accepted, ends the connection with
// the process, and reads the process's selectors through that pin. It does not
// decide which identities the selectors earn, and speaks no API.
package workloadattest
