package conformance

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
)

// tlsChecks are who may connect at all, and what the server shows.
func tlsChecks() []Check {
	return []Check{
		{"tls/foreign caller not in admin_ids", func(c *C) {
			c.federate("foreign.test", c.foreign.Cert)
			c.noHandshake(caller{conn: c.dial(c.foreign.SVID(c.T, "spiffe://foreign.test/other"))})
		}},
		{"tls/self-signed caller of our trust domain", func(c *C) {
			other := testcaNew(c)
			c.noHandshake(caller{conn: c.dial(other.SVID(c.T, c.id(adminPath).String()))})
		}},
		{"tls/expired caller", func(c *C) {
			c.noHandshake(caller{conn: c.dial(c.foreign.SVID(c.T, foreignAdmin, expired))})
		}},
		{"tls/server SVID", serverSVID},
		{"tls/versions", tlsVersions},
		{"tls/tickets", noTickets},
		{"tls/reflection", noReflection},
	}
}

// handshake connects without a certificate, and leaves the server's to the check.
func (c *C) handshake(change func(*tls.Config)) (*tls.Conn, error) {
	c.Helper()
	config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}} //nolint:gosec // the checks look themselves
	if change != nil {
		change(config)
	}
	conn, err := tls.Dial("tcp", c.server.Addr, config)
	if err == nil {
		c.Cleanup(func() { _ = conn.Close() })
	}
	return conn, err
}

func serverSVID(c *C) {
	conn, err := c.handshake(nil)
	c.must(err)
	state := conn.ConnectionState()
	c.equal("protocol", state.NegotiatedProtocol, "h2")
	c.equal("length of the chain", len(state.PeerCertificates), 1)
	leaf := state.PeerCertificates[0]
	c.leafProfile(leaf, c.id("/spire/server"))
	pool := x509.NewCertPool()
	for _, root := range c.bundle().X509Authorities() {
		pool.AddCert(root)
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	c.must(err)
	if left := time.Until(leaf.NotAfter); left > time.Hour || left < 50*time.Minute {
		c.Errorf("valid for %s, want an hour", left)
	}
}

func tlsVersions(c *C) {
	own := c.certificate()
	for version, want := range map[uint16]bool{tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		_, err := c.handshake(func(config *tls.Config) {
			config.MinVersion, config.MaxVersion, config.Certificates = version, version, own
		})
		if (err == nil) != want {
			c.Errorf("%s: %v", tls.VersionName(version), err)
		}
	}
	_, err := c.handshake(func(config *tls.Config) { config.MaxVersion = tls.VersionTLS12 })
	if want := c.Differs("tls: 1.2 without a certificate"); (err == nil) != want {
		c.Errorf("TLS 1.2 without a certificate: %v", err)
	}
}

// certificate is a workload's SVID as crypto/tls has it.
func (c *C) certificate() []tls.Certificate {
	c.Helper()
	svid := c.mint("/" + c.unique("tls"))
	return []tls.Certificate{{Certificate: [][]byte{svid.Certificates[0].Raw}, PrivateKey: svid.PrivateKey}}
}

// noTickets wants no session resumed, as nothing would look at the caller again.
func noTickets(c *C) {
	cache, own := tls.NewLRUClientSessionCache(4), c.certificate()
	for range 2 {
		conn, err := c.handshake(func(config *tls.Config) {
			config.ClientSessionCache, config.MaxVersion, config.ServerName = cache, tls.VersionTLS12, "server"
			config.Certificates = own
		})
		c.must(err)
		if conn.ConnectionState().DidResume {
			c.Error("a session was resumed")
		}
	}
}

func noReflection(c *C) {
	for what, conn := range map[string]*grpc.ClientConn{"admin socket": c.conn, "TCP": c.dial(nil)} {
		for _, version := range []string{"v1", "v1alpha"} {
			err := c.call(conn, method{"/grpc.reflection." + version + ".ServerReflection/ServerReflectionInfo", true})
			if status.Code(err) != codes.Unimplemented {
				c.Errorf("%s, %s: %v", what, version, err)
			}
		}
	}
}

// noHandshake expects that a caller does not get as far as a call.
func (c *C) noHandshake(who caller) {
	c.Helper()
	_, err := bundlev1.NewBundleClient(who.conn).GetBundle(c.ctx, &bundlev1.GetBundleRequest{})
	if status.Code(err) != codes.Unavailable {
		c.Error(fmt.Errorf("got %w, want the connection refused", err))
	}
}
