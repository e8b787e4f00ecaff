package trust

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
)

// URL is a bundle at an https URL whose server's certificate is of an authority
// of the system's, or at an http URL that is asked for over a UNIX socket.
type URL struct {
	TrustDomain spiffeid.TrustDomain
	URL         string
	// UnixSocket, if set, is the path of the socket that answers. What is there is
	// told why it is asked, in the query, as SPIRE tells it.
	UnixSocket string
	// Format is PEM (as "") or SPIFFE.
	Format string
	// Transport replaces the way to https URLs; nil is Go's own.
	Transport http.RoundTripper
}

const (
	// urlTimeout is how long all of an answer may take.
	urlTimeout   = 30 * time.Second
	maxRedirects = 10
)

// Bundle implements upstream.BundleSource. What is no bundle now may be one later,
// but for a URL that cannot be asked.
func (u URL) Bundle(ctx context.Context) (*x509bundle.Bundle, error) {
	address, err := u.address()
	if err != nil {
		return nil, upstream.Hopeless(err)
	}
	shown := address.Redacted()
	if u.UnixSocket != "" {
		u.tell(address, upstream.AskingFrom(ctx))
	}
	ctx, cancel := context.WithTimeout(ctx, urlTimeout)
	defer cancel()
	content, err := u.fetch(ctx, address)
	if err != nil {
		// The query says nothing to whoever reads it.
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err
		}
		return nil, fmt.Errorf("%s: %w", shown, err)
	}
	bundle, err := Parse(u.TrustDomain, u.Format, content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", shown, err)
	}
	return bundle, nil
}

func (u URL) address() (*url.URL, error) {
	address, err := url.Parse(u.URL)
	switch {
	case err != nil:
		return nil, fmt.Errorf("trust_bundle_url: %w", err)
	case address.Host == "":
		return nil, fmt.Errorf("trust_bundle_url %q has no host", address.Redacted())
	case u.UnixSocket == "" && address.Scheme != "https":
		return nil, fmt.Errorf("trust_bundle_url %q: want https, as whoever changed it on its way would be the agent's issuer", address.Redacted())
	case u.UnixSocket != "" && address.Scheme != "http":
		return nil, fmt.Errorf("trust_bundle_url %q: want http with trust_bundle_unix_socket", address.Redacted())
	}
	return address, nil
}

// tell adds SPIRE's query to the URL of a UNIX socket.
func (u URL) tell(address *url.URL, asking upstream.Asking) {
	mode := "bootstrap"
	if asking.Anew {
		mode = "rebootstrap"
	}
	host, port, err := net.SplitHostPort(asking.Issuer)
	if err != nil {
		host, port = asking.Issuer, ""
	}
	query := address.Query()
	query.Set("spire-attest-mode", mode)
	query.Set("spire-connection-attempts", strconv.Itoa(asking.Attempt))
	query.Set("spire-attest-start-time", asking.Began.Format(time.RFC3339))
	query.Set("spire-server-address", host)
	query.Set("spire-server-port", port)
	query.Set("spiffe-trust-domain", u.TrustDomain.Name())
	address.RawQuery = query.Encode()
}

// fetch makes connections of its own, and leaves none behind.
func (u URL) fetch(ctx context.Context, address *url.URL) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := u.client().Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("answers %s", resp.Status)
	}
	return read(resp.Body)
}

func (u URL) client() *http.Client {
	if u.UnixSocket != "" {
		dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", u.UnixSocket)
		}
		return &http.Client{
			Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true},
			// It would be asked of the same socket again, whatever it names.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	transport := u.Transport
	if transport == nil {
		transport = &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, ForceAttemptHTTP2: true}
	}
	return &http.Client{Transport: transport, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if req.URL.Scheme != "https" {
			return fmt.Errorf("it redirects to %s, which is not https", req.URL.Redacted())
		}
		if len(via) >= maxRedirects {
			return fmt.Errorf("it redirects more than %d times", maxRedirects)
		}
		return nil
	}}
}
