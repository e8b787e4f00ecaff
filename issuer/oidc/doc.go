// Package oidc owns the OpenID Connect view of the trust domain: a discovery document and a JSON Web Key Set, by which
// relying parties that know nothing of SPIFFE verify its JWT-SVIDs. It answers as SPIRE's oidc-discovery-provider does, on
// a listener of its own, and needs no other process. It signs nothing, holds no signing key, and verifies no token: which
// keys there are it asks with each request.
//
// The key set holds the JWT authorities of the trust domain's own bundle, all of them, as SPIRE's does. Tainted ones are
// among them: to taint a key asks agents to replace what it has signed, and until they have, and the key is revoked,
// relying parties must go on taking it. One to be distrusted at once is revoked, which takes it out of the bundle, and so
// out of the next answer: answers are never taken from a cache without asking, but cost a 304 while nothing has changed.
//
// Where it differs from SPIRE's: HEAD is answered too; both paths are there below the issuer URL's path as well as below
// the path prefix; plain HTTP is only for loopback addresses and UNIX sockets; certificate files that can't be used leave
// the last good pair in place.
package oidc
