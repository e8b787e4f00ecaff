package status

import (
	"slices"
	"strings"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/metrics"
)

// workloadAPI begins an identity.Status.Source that is a Workload API.
const workloadAPI = "Workload API"

// identities fills in the identities and bundles, and returns why a tunnel has
// none, by its name.
func (r *Response) identities(list []metrics.IdentityStatus, now time.Time) map[string]error {
	failed := map[string]error{}
	for _, id := range list {
		r.Identities = append(r.Identities, newIdentity(id, now))
		if id.Err != nil {
			for _, name := range id.Tunnels {
				failed[name] = id.Err
			}
		}
		if strings.HasPrefix(id.Source, workloadAPI) && (r.WorkloadAPI == nil || r.WorkloadAPI.Connected) {
			r.WorkloadAPI = &WorkloadAPI{Connected: id.Connected, Error: text(id.ConnectionErr)}
		}
		for _, b := range id.Bundles {
			r.bundle(id.Source, b, now)
		}
	}
	if len(r.Identities) == 1 {
		r.Identity = &r.Identities[0]
	}
	return failed
}

func newIdentity(id metrics.IdentityStatus, now time.Time) Identity {
	return Identity{OK: id.Err == nil, SPIFFEID: id.SPIFFEID, Subject: id.Subject, Source: id.Source,
		Tunnels:  slices.DeleteFunc(slices.Clone(id.Tunnels), func(name string) bool { return name == "" }),
		NotAfter: set(id.NotAfter), ExpiresIn: seconds(id.NotAfter, now, id.NotAfter),
		LastUpdate: set(id.LastUpdate), Error: text(id.Err), SourceError: text(id.ConnectionErr)}
}

// bundle adds a bundle, unless another identity from the same source had it.
func (r *Response) bundle(source string, b identity.BundleStatus, now time.Time) {
	if slices.ContainsFunc(r.Bundles, func(o Bundle) bool { return o.TrustDomain == b.TrustDomain && o.Source == source }) {
		return
	}
	r.Bundles = append(r.Bundles, Bundle{TrustDomain: b.TrustDomain, Source: source, Authorities: b.Authorities,
		NotAfter: set(b.NotAfter), LastUpdate: set(b.Updated), Age: seconds(b.Updated, b.Updated, now)})
}

// seconds is the time from one moment to another; nil if of, on which it depends,
// is not known.
func seconds(of, from, to time.Time) *int64 {
	if of.IsZero() {
		return nil
	}
	s := int64(to.Sub(from) / time.Second)
	return &s
}
