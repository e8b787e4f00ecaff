// Package serverapi owns the SPIRE server API: one file a service, the table
// of who may call what, and the listeners' TLS. It keeps no state: records
// are issuer/store's, keys and signatures issuer/ca's, admission
// issuer/enroll's.
package serverapi
