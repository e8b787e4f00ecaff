package identity

import (
	"crypto/tls"
	"sync"
)

// Configs returns a function that gives the tls.Config of an identity. build is
// called once for each version, so everything that lives in a configuration, as
// session tickets and session caches do, ends with its version.
func Configs(build func(*Identity) *tls.Config) func(*Identity) *tls.Config {
	var (
		mu     sync.Mutex
		of     *Identity
		config *tls.Config
	)
	return func(i *Identity) *tls.Config {
		mu.Lock()
		defer mu.Unlock()
		if of != i {
			of, config = i, build(i)
		}
		return config
	}
}
