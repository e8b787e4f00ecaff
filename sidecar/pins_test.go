package sidecar_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/sidecar"
	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/policy"
	"github.com/lanyard-mtls/lanyard/sidecar/proxyproto"
)

// pinned is an identity in files, and the policy that expects its key.
func pinned(t *testing.T, svid *x509svid.SVID) (identity.Config, policy.Config) {
	t.Helper()
	dir := t.TempDir()
	cert, key, err := svid.Marshal()
	check(t, err)
	cfg := identity.Config{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	check(t, os.WriteFile(cfg.Cert, cert, 0o600))
	check(t, os.WriteFile(cfg.Key, key, 0o600))
	sum := sha256.Sum256(svid.Certificates[0].RawSubjectPublicKeyInfo)
	return cfg, policy.Config{Pins: []string{"sha256:" + base64.StdEncoding.EncodeToString(sum[:])}}
}

// A pinned key says nothing about the names beside it: the target is not told of
// them.
func TestPinnedPeersAreKnownByTheirKeyOnly(t *testing.T) {
	const claimed = "spiffe://one.test/admin"
	own, ownKey := pinned(t, testca.New(t, "one.test").SVID(t, dbID))
	theirs, theirKey := pinned(t, testca.New(t, "one.test").SVID(t, claimed))
	headers := make(chan []byte, 1)
	target := backend(t, func(c *net.TCPConn) {
		head := make([]byte, 16)
		if _, err := io.ReadFull(c, head); err != nil {
			return
		}
		rest := make([]byte, int(head[14])<<8|int(head[15]))
		if _, err := io.ReadFull(c, rest); err != nil {
			return
		}
		headers <- rest
		echo(c)
	})
	server := start(t, spec{Tunnel: sidecar.Tunnel{Mode: sidecar.Server, Target: target, Identity: own, Policy: theirKey, ProxyProtocol: proxyproto.TLS}})
	client := start(t, spec{Tunnel: sidecar.Tunnel{Mode: sidecar.Client, Target: server.addr, Identity: theirs, Policy: ownKey}})
	exchange(t, dial(t, client.addr), "hello")
	if header := <-headers; bytes.Contains(header, []byte(claimed)) {
		t.Errorf("the target is told of an ID that nobody vouches for: %q", header)
	}
}
