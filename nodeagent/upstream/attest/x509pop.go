package attest

import (
	"context"
	"crypto"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
	"github.com/lanyard-mtls/lanyard/internal/nodeattest/x509pop"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
)

// X509POP proves the key of a certificate: of PEM files, which are read at each
// attempt, for they are replaced as certificates age; or of an X509-SVID that a
// Workload API gives.
type X509POP struct {
	PrivateKeyPath  string
	CertificatePath string
	// IntermediatesPath may be "".
	IntermediatesPath string
	// EndpointSocket is the address of a Workload API, such as
	// unix:///run/other/api.sock; then no file is read.
	EndpointSocket string
}

// fetchTimeout is how long a Workload API may take.
const fetchTimeout = 10 * time.Second

// Kind implements upstream.Attestor.
func (X509POP) Kind() (string, bool) { return nodeattest.X509POP, true }

// Check implements upstream.Attestor.
func (x X509POP) Check() error {
	if x.EndpointSocket != "" {
		return nil // it may come later than this agent
	}
	_, _, err := x.files()
	return err
}

// Begin implements upstream.Attestor.
func (x X509POP) Begin(ctx context.Context, _ upstream.Attempt) (upstream.Proof, error) {
	load := x.files
	if x.EndpointSocket != "" {
		load = func() ([][]byte, crypto.Signer, error) { return x.fetch(ctx) }
	}
	chain, key, err := load()
	if err != nil {
		return upstream.Proof{}, err
	}
	payload, err := x509pop.NewPayload(chain)
	respond := func(_ context.Context, challenge []byte, _ upstream.Exporter) ([]byte, error) {
		return x509pop.Respond(key, challenge)
	}
	return upstream.Proof{Payload: payload, Respond: respond}, err
}

// files reads the key and the chain, DER, leaf first.
func (x X509POP) files() ([][]byte, crypto.Signer, error) {
	pair, err := tls.LoadX509KeyPair(x.CertificatePath, x.PrivateKeyPath)
	if err != nil {
		return nil, nil, fmt.Errorf("x509pop: certificate_path %s with private_key_path %s: %w", x.CertificatePath, x.PrivateKeyPath, err)
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("x509pop: private_key_path %s: the key cannot sign", x.PrivateKeyPath)
	}
	chain := pair.Certificate
	if x.IntermediatesPath == "" {
		return chain, key, nil
	}
	text, err := os.ReadFile(x.IntermediatesPath)
	if err != nil {
		return nil, nil, fmt.Errorf("x509pop: intermediates_path %w", err)
	}
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, nil, fmt.Errorf("x509pop: intermediates_path %s: has a PEM block %q: want certificates only", x.IntermediatesPath, block.Type)
		}
		chain = append(chain, block.Bytes)
	}
	return chain, key, nil
}

// fetch asks the Workload API for an SVID.
func (x X509POP) fetch(ctx context.Context) ([][]byte, crypto.Signer, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	svid, err := workloadapi.FetchX509SVID(ctx, workloadapi.WithAddr(x.EndpointSocket))
	if err != nil {
		return nil, nil, upstream.Transient(fmt.Errorf("x509pop: spiffe_endpoint_socket %s: %w", x.EndpointSocket, err))
	}
	if svid.PrivateKey == nil {
		return nil, nil, errors.New("x509pop: the Workload API's SVID has no key")
	}
	var chain [][]byte
	for _, cert := range svid.Certificates {
		chain = append(chain, cert.Raw)
	}
	return chain, svid.PrivateKey, nil
}
