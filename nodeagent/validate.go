package nodeagent

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
	"github.com/lanyard-mtls/lanyard/internal/unixsock"
	"github.com/lanyard-mtls/lanyard/nodeagent/svidcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
)

// Validate reports all that is wrong with the configuration. It reads the file
// TrustBundlePath and nothing else.
func (c Config) Validate() error {
	_, err := c.trustBundle()
	return errors.Join(c.validate(), err)
}

func (c Config) validate() error {
	var errs []error
	require := func(value, key string) {
		if value == "" {
			errs = append(errs, fmt.Errorf("%s is not set", key))
		}
	}
	require(c.TrustDomain.Name(), "trust_domain")
	require(c.DataDir, "data_dir")
	require(c.SocketPath, "socket_path")
	if _, port, err := net.SplitHostPort(c.ServerAddress); len(c.ServerAddresses) == 0 && (err != nil || port == "") {
		errs = append(errs, fmt.Errorf("issuer address %q: want host:port", c.ServerAddress))
	}
	if c.JoinToken != "" {
		errs = append(errs, nodeattest.CheckJoinToken(c.JoinToken))
	}
	if count(c.TrustBundle != nil, c.TrustBundlePath != "", c.TrustSource != nil) > 1 {
		errs = append(errs, errors.New("two trust bundles are set: keep one"))
	}
	for _, addr := range c.ServerAddresses {
		if host, port, err := net.SplitHostPort(addr); err != nil || host == "" || port == "" {
			errs = append(errs, fmt.Errorf("issuer address %q in server_addresses: want host:port", addr))
		}
	}
	errs = append(errs, c.checkSockets())
	if c.SyncInterval < 0 {
		errs = append(errs, fmt.Errorf("sync_interval %s is negative", c.SyncInterval))
	}
	if c.X509SVIDCacheMaxSize < 0 {
		errs = append(errs, fmt.Errorf("x509_svid_cache_max_size %d is negative", c.X509SVIDCacheMaxSize))
	}
	if c.JWTSVIDCacheMaxSize < 0 {
		errs = append(errs, fmt.Errorf("jwt_svid_cache_max_size %d is negative", c.JWTSVIDCacheMaxSize))
	}
	errs = append(errs, svidcache.CheckKeyType(c.WorkloadKeyType), c.Metrics.Validate(), c.Health.Validate())
	return errors.Join(errs...)
}

func count(are ...bool) (n int) {
	for _, is := range are {
		if is {
			n++
		}
	}
	return n
}

// checkSockets reports sockets that are in each other's place, or whose paths are too long.
func (c Config) checkSockets() error {
	errs := []error{unixsock.CheckPath(c.SocketPath)}
	used := map[string]string{c.SocketPath: "socket_path"}
	use := func(path, key string) {
		if other := used[path]; other != "" && path != "" {
			errs = append(errs, fmt.Errorf("%s and %s are the same: %s", other, key, path))
		}
		used[path] = key
		errs = append(errs, unixsock.CheckPath(path))
	}
	use(c.AdminSocketPath, "admin_socket_path")
	names := make(map[string]bool)
	for _, s := range c.Sockets {
		if err := spiffeid.ValidatePathSegment(s.Name); err != nil {
			errs = append(errs, fmt.Errorf("socket %q: its name must be one segment of a SPIFFE ID's path: %w", s.Name, err))
		}
		if names[s.Name] {
			errs = append(errs, fmt.Errorf("socket %q is there twice: keep one", s.Name))
		}
		names[s.Name] = true
		if s.Path == "" {
			errs = append(errs, fmt.Errorf("socket %q: path is not set", s.Name))
		}
		use(s.Path, fmt.Sprintf("the path of socket %q", s.Name))
	}
	return errors.Join(errs...)
}

// trustBundle returns nil where none is configured.
func (c Config) trustBundle() (*x509bundle.Bundle, error) {
	pem := c.TrustBundle
	if c.TrustBundlePath != "" {
		var err error
		if pem, err = os.ReadFile(c.TrustBundlePath); err != nil {
			return nil, fmt.Errorf("trust bundle: %w", err)
		}
	}
	if pem == nil || c.TrustDomain.IsZero() {
		return nil, nil
	}
	bundle, err := upstream.ParseTrustBundle(c.TrustDomain, pem)
	if err != nil && c.TrustBundlePath != "" {
		err = fmt.Errorf("%s: %w", c.TrustBundlePath, err)
	}
	return bundle, err
}
