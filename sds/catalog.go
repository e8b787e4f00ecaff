package sds

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lanyard-mtls/lanyard/internal/workload"
)

// resource is one secret, encoded. It is immutable and shared by all streams
// whose client is entitled to the X509Context it was made from.
type resource struct {
	name    string
	version string // of the content: equal secrets have equal versions
	body    *anypb.Any
	ends    time.Time // when an SVID expires; zero for a bundle
}

func (r *resource) expired(now time.Time) bool { return !r.ends.IsZero() && !now.Before(r.ends) }

// catalog is every secret that can be made from one X509Context. Each is
// encoded once, when first asked for.
type catalog struct {
	key   catalogKey
	names Options
	users int // streams; guarded by catalogs.mu

	mu   sync.Mutex
	made map[string]*resource
}

type catalogKey struct {
	context *workload.X509Context
	plain   bool // bundles as trusted_ca, without the SPIFFE validator
}

// find returns the secret of that name, or nil if there is none now.
func (c *catalog) find(name string) *resource {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r, ok := c.made[name]; ok {
		return r
	}
	r, err := c.make(name)
	if err != nil {
		// Kept as well, though it logs once more for each context.
		if !errors.Is(err, errNoSecret) {
			c.names.Log.Error("a secret cannot be served", "name", abbreviate(name), "error", err)
			c.made[name] = nil
		}
		return nil
	}
	c.made[name] = r
	return r
}

// errNoSecret says that nothing has the name. Such names are not remembered: a
// client could think of any number.
var errNoSecret = errors.New("no secret has this name")

func (c *catalog) make(name string) (*resource, error) {
	own := c.key.context.Default()
	switch name {
	case c.names.SVIDName:
		return c.svid(name, own)
	case c.names.BundleName:
		if own == nil {
			return nil, errNoSecret
		}
		return c.bundle(name, own.ID.TrustDomain())
	case c.names.AllBundlesName:
		return c.allBundles(name)
	}
	id, err := spiffeid.FromString(name)
	switch {
	case err != nil:
		return nil, errNoSecret
	case id.Path() == "":
		return c.bundle(name, id.TrustDomain())
	}
	return c.svid(name, c.key.context.Find(id))
}

func (c *catalog) svid(name string, svid *x509svid.SVID) (*resource, error) {
	if svid == nil {
		return nil, errNoSecret
	}
	return newCertificate(name, svid)
}

func (c *catalog) bundle(name string, td spiffeid.TrustDomain) (*resource, error) {
	bundle := c.key.context.Bundles[td]
	if bundle == nil || bundle.Empty() {
		return nil, errNoSecret
	}
	if c.key.plain {
		return newTrustedCA(name, bundle)
	}
	return newSPIFFEValidator(name, []*x509bundle.Bundle{bundle})
}

func (c *catalog) allBundles(name string) (*resource, error) {
	var bundles []*x509bundle.Bundle
	for _, bundle := range c.key.context.Bundles {
		if !bundle.Empty() {
			bundles = append(bundles, bundle)
		}
	}
	switch {
	case len(bundles) == 0:
		return nil, errNoSecret
	case c.key.plain:
		return nil, errors.New("all bundles in one trusted_ca would let each trust domain sign for every other: ask for one bundle, or enable the SPIFFE certificate validator")
	}
	return newSPIFFEValidator(name, bundles)
}

// ids returns the SPIFFE IDs of what there is, the wildcard's names, sorted.
func (c *catalog) ids() []string {
	names := make(map[string]bool)
	for _, svid := range c.key.context.SVIDs {
		names[svid.ID.String()] = true
	}
	for td, bundle := range c.key.context.Bundles {
		if !bundle.Empty() {
			names[td.IDString()] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// possible says whether a secret could ever have the name.
func (o Options) possible(name string) bool {
	switch name {
	case o.SVIDName, o.BundleName, o.AllBundlesName, wildcard:
		return true
	}
	_, err := spiffeid.FromString(name)
	return err == nil
}

// catalogs holds the catalog of each X509Context that some stream shows, and
// none longer: the keys in it are forgotten with the last stream.
type catalogs struct {
	names Options

	mu sync.Mutex
	in map[catalogKey]*catalog
}

// acquire returns the catalog of context for one more user.
func (cs *catalogs) acquire(context *workload.X509Context, plain bool) *catalog {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	key := catalogKey{context, plain}
	c, ok := cs.in[key]
	if !ok {
		c = &catalog{key: key, names: cs.names, made: make(map[string]*resource)}
		if cs.in == nil {
			cs.in = make(map[catalogKey]*catalog)
		}
		cs.in[key] = c
	}
	c.users++
	return c
}

// release gives back what acquire returned; nil is nothing.
func (cs *catalogs) release(c *catalog) {
	if c == nil {
		return
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if c.users--; c.users == 0 {
		delete(cs.in, c.key)
	}
}
