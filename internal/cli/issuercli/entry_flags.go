package issuercli

import (
	"errors"

	"github.com/spf13/pflag"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// entryFlags are the flags of entry create and update that say what is in an entry.
type entryFlags struct {
	data                          string
	entryID, parentID, spiffeID   string
	selectors, federatesWith, dns cli.Strings
	x509TTL, jwtTTL               int
	expiry                        int64
	hint                          string
	admin, downstream, storeSVID  bool
	noPrefetch, includeJTI        bool
	node                          bool // create only
}

func (e *entryFlags) add(fs *pflag.FlagSet) {
	fs.StringVar(&e.spiffeID, "spiffeID", "", "SPIFFE `ID` the workload gets, or a template of one, /docker/{{docker:label:app}}")
	fs.StringVar(&e.parentID, "parentID", "", "SPIFFE `ID` of the node agent, or of the nodes, that may hand it out")
	fs.Var(&e.selectors, "selector", "`TYPE:VALUE` the workload must have, like unix:uid:1000; may be given more than once: it must have all")
	fs.IntVar(&e.x509TTL, "x509SVIDTTL", 0, "lifetime of its X.509-SVIDs in `SECONDS` (default: the issuer's)")
	fs.IntVar(&e.jwtTTL, "jwtSVIDTTL", 0, "lifetime of its JWT-SVIDs in `SECONDS` (default: the issuer's)")
	fs.Var(&e.dns, "dns", "DNS `NAME` put into its SVIDs; may be given more than once")
	fs.Var(&e.federatesWith, "federatesWith", "`TRUST_DOMAIN` whose bundle it gets too; may be given more than once")
	fs.StringVar(&e.hint, "hint", "", "`TEXT` that tells several identities of one workload apart")
	fs.Int64Var(&e.expiry, "entryExpiry", 0, "`UNIX_SECONDS` after which the entry is gone (default: never)")
	fs.BoolVar(&e.admin, "admin", false, "the identity may call the issuer's management API")
	fs.BoolVar(&e.downstream, "downstream", false, "the identity is a downstream issuer's")
	fs.BoolVar(&e.storeSVID, "storeSVID", false, "an SVIDStore plugin gets the SVID, and no workload")
	fs.BoolVar(&e.noPrefetch, "disableX509SVIDPrefetch", false, "agents make the SVID at the first request only")
	fs.BoolVar(&e.includeJTI, "jwtSVIDIncludeJTI", false, "JWT-SVIDs carry a jti claim and are not cached")
	fs.StringVar(&e.entryID, "entryID", "", "`ID` of the entry (create: made by the issuer if not given)")
	fs.StringVar(&e.data, "data", "", "JSON `FILE` with entries, - for standard input; conflicts with all flags above")
}

// onlyData refuses flags that -data would overrule in silence.
func onlyData(fs *pflag.FlagSet) error {
	var err error
	fs.Visit(func(f *pflag.Flag) {
		switch f.Name {
		case "data", "output", "socketPath", "instance":
		default:
			err = errors.Join(err, cli.Usagef("-data and -%s can't be combined: the file says it all", f.Name))
		}
	})
	return err
}

// entry makes the entry the flags describe.
func (e *entryFlags) entry() (*types.Entry, error) {
	spiffeID, err := entryID("spiffeID", e.spiffeID, "the SPIFFE ID the workload gets")
	if err != nil {
		return nil, err
	}
	parentID, err := e.parent(spiffeID)
	if err != nil {
		return nil, err
	}
	if len(e.selectors) == 0 {
		return nil, cli.Usagef("-selector is missing: what the workload is known by, like -selector unix:uid:1000")
	}
	sel, selErr := selectors(e.selectors)
	federates, fedErr := trustDomains(e.federatesWith)
	x509TTL, x509Err := seconds("x509SVIDTTL", e.x509TTL)
	jwtTTL, jwtErr := seconds("jwtSVIDTTL", e.jwtTTL)
	if err := errors.Join(selErr, fedErr, x509Err, jwtErr); err != nil {
		return nil, err
	}
	entry := &types.Entry{
		Id: e.entryID, SpiffeId: spiffeID, ParentId: parentID, Selectors: sel, FederatesWith: federates, DnsNames: e.dns,
		X509SvidTtl: x509TTL, JwtSvidTtl: jwtTTL, ExpiresAt: e.expiry, Hint: e.hint,
		Admin: e.admin, Downstream: e.downstream, StoreSvid: e.storeSVID,
	}
	if e.noPrefetch || e.includeJTI {
		entry.AdditionalAttributes = &types.Entry_AdditionalAttributes{DisableX509SvidPrefetch: e.noPrefetch, JwtSvidIncludeJti: e.includeJTI}
	}
	return entry, nil
}

// parent is -parentID or, for an entry about nodes, the issuer itself.
func (e *entryFlags) parent(spiffeID *types.SPIFFEID) (*types.SPIFFEID, error) {
	switch {
	case !e.node:
		return requiredID("parentID", e.parentID, `the SPIFFE ID of a node agent ("lanyard issuer agent list" shows them), or give -node for an entry about nodes`)
	case len(e.federatesWith) > 0:
		return nil, cli.Usagef("-node and -federatesWith can't be combined: node entries don't federate")
	case e.parentID != "":
		return nil, cli.Usagef("-node and -parentID can't be combined: a node entry's parent is the issuer")
	}
	return &types.SPIFFEID{TrustDomain: spiffeID.TrustDomain, Path: "/spire/server"}, nil
}
