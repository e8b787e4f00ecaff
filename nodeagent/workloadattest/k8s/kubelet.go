package k8s

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// maxList is the longest list of pods that is read, in bytes. A node of 500 pods
// has one of some 10 MB.
const maxList = 256 << 20

// files are what was read to talk to the kubelet.
type files struct{ ca, certificate, key, token []byte }

// kubelet asks the kubelet. It belongs to one goroutine at a time.
type kubelet struct {
	cfg      Config
	files    files
	client   *http.Client
	loadedAt time.Time // zero: the files are to be read
}

// pods gets all pods of the node.
func (k *kubelet) pods(ctx context.Context) (*index, error) {
	if k.loadedAt.IsZero() || time.Since(k.loadedAt) >= k.cfg.ReloadInterval {
		if err := k.load(); err != nil {
			return nil, err
		}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, k.url(), nil)
	if err != nil {
		return nil, fmt.Errorf("unable to create request: %w", err)
	}
	if len(k.files.token) > 0 {
		request.Header.Set("Authorization", "Bearer "+string(k.files.token))
	}
	response, err := k.client.Do(request)
	if err != nil {
		k.loadedAt = time.Time{} // its certificate may be new, and the CA's file with it
		return nil, fmt.Errorf("unable to perform request: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		k.loadedAt = time.Time{}
		said, _ := io.ReadAll(io.LimitReader(response.Body, 256))
		return nil, fmt.Errorf("unexpected status code on pods response: %d %.256q", response.StatusCode, bytes.TrimSpace(said))
	}
	x, err := newIndex(http.MaxBytesReader(nil, response.Body, maxList))
	if err == nil {
		_, _ = io.CopyN(io.Discard, response.Body, 512) // a line's end, so that the connection is used again
	}
	return x, err
}

func (k *kubelet) url() string {
	if k.cfg.KubeletReadOnlyPort > 0 {
		return "http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(k.cfg.KubeletReadOnlyPort)) + "/pods"
	}
	host := k.cfg.NodeName
	if host == "" {
		host = "127.0.0.1"
	}
	return "https://" + net.JoinHostPort(host, strconv.Itoa(k.cfg.KubeletSecurePort)) + "/pods"
}

// load reads the files, and makes a new client where more than the token changed.
func (k *kubelet) load() error {
	now, err := k.read()
	if err != nil {
		return err
	}
	same := k.client != nil && bytes.Equal(now.ca, k.files.ca) &&
		bytes.Equal(now.certificate, k.files.certificate) && bytes.Equal(now.key, k.files.key)
	if !same {
		config, err := k.tls(now)
		if err != nil {
			return err
		}
		k.close()
		k.client = newClient(config)
	}
	k.files, k.loadedAt = now, time.Now()
	return nil
}

// newClient sends what it sends to no proxy, and to nobody it is redirected to:
// a token goes with it.
func newClient(config *tls.Config) *http.Client {
	return &http.Client{
		Transport: &http.Transport{TLSClientConfig: config, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: 5 * time.Second},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("redirected, which is not followed")
		},
	}
}

func (k *kubelet) read() (f files, err error) {
	if k.cfg.KubeletReadOnlyPort > 0 {
		return f, nil
	}
	if !k.cfg.SkipKubeletVerification {
		if f.ca, err = os.ReadFile(k.cfg.KubeletCAPath); err != nil {
			return f, fmt.Errorf("unable to load kubelet CA: %w", err)
		}
	}
	switch {
	case k.cfg.UseAnonymousAuthentication:
	case k.cfg.CertificatePath != "" && k.cfg.PrivateKeyPath == "":
		return f, errNoPrivateKey
	case k.cfg.CertificatePath == "" && k.cfg.PrivateKeyPath != "":
		return f, errNoCertificate
	case k.cfg.CertificatePath != "":
		if f.certificate, err = os.ReadFile(k.cfg.CertificatePath); err != nil {
			return f, fmt.Errorf("unable to load certificate: %w", err)
		}
		if f.key, err = os.ReadFile(k.cfg.PrivateKeyPath); err != nil {
			return f, fmt.Errorf("unable to load private key: %w", err)
		}
	default:
		if f.token, err = readToken(k.cfg.TokenPath); err != nil {
			return f, err
		}
	}
	return f, nil
}

func readToken(path string) ([]byte, error) {
	token, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("unable to load token: %w", err)
	}
	token = bytes.TrimSpace(token)
	if len(token) == 0 || strings.ContainsFunc(string(token), func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, fmt.Errorf("unable to load token: %s has none", path)
	}
	return token, nil
}

// tls makes a configuration of what was read: nil for plain HTTP.
func (k *kubelet) tls(f files) (*tls.Config, error) {
	if k.cfg.KubeletReadOnlyPort > 0 {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if k.cfg.SkipKubeletVerification {
		config.InsecureSkipVerify = true
	} else {
		roots, err := pool(f.ca)
		if err != nil {
			return nil, fmt.Errorf("unable to parse kubelet CA: %s: %w", k.cfg.KubeletCAPath, err)
		}
		config.RootCAs = roots
		if k.cfg.NodeName == "" {
			// Called by an address that no certificate has, it may have any name;
			// who signed it is verified all the same, at resumptions too.
			config.InsecureSkipVerify = true
			config.VerifyConnection = func(state tls.ConnectionState) error { return verifyAnyName(state, roots) }
		}
	}
	if f.certificate != nil {
		pair, err := tls.X509KeyPair(f.certificate, f.key)
		if err != nil {
			return nil, fmt.Errorf("unable to load keypair: %s, %s: %w", k.cfg.CertificatePath, k.cfg.PrivateKeyPath, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

func verifyAnyName(state tls.ConnectionState, roots *x509.CertPool) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("no certs presented by kubelet")
	}
	intermediates := x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		intermediates.AddCert(c)
	}
	_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates})
	return err
}

// pool reads PEM certificates; one that can't be read is an error, as in SPIRE.
func pool(data []byte) (*x509.CertPool, error) {
	certs := x509.NewCertPool()
	found := false
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs.AddCert(cert)
		found = true
	}
	if !found {
		return nil, errors.New("no PEM certificates")
	}
	return certs, nil
}

func (k *kubelet) close() {
	if k.client != nil {
		k.client.CloseIdleConnections()
	}
}
