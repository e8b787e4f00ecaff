package upstream

import (
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// Client is the agent towards its issuer.
type Client struct {
	cfg     Config
	log     *slog.Logger
	id      *identity
	issuers *issuers
	links   links
	// joined is closed when there are an SVID and a bundle.
	joined chan struct{}
	// denials carries the newest word that the issuer refuses the agent.
	denials chan denial
	// moved fires when calls go to another issuer, or as another SVID, from now.
	moved   signal
	anew    atomic.Int64 // counts rebootstraps
	mistake distrust
	contact contact
	unsaved sometimes
	// sequence is that of the own bundle, as the issuer last told it.
	sequence atomic.Uint64
	batch    batchSize
	wander   sometimes
	limits   limits
}

// limits are what tests shorten.
type limits struct {
	// silence is how long a stream may be without a word: the issuer says one
	// every 30 s at least.
	silence time.Duration
	// firstBack is after how long the first issuer is tried again.
	firstBack time.Duration
	// changeTime is how long a change may take to come, and changeSize how much of
	// it there may be, in bytes: 100,000 entries are some 30 MB.
	changeTime time.Duration
	changeSize int
}

// denial is a refusal of the agent itself, and the SVID that met it.
type denial struct {
	reason types.PermissionDeniedDetails_Reason
	svid   *x509svid.SVID
}

// Open reads the state files. It fails where they are damaged or of another
// trust domain, where the agent has not joined and its Attestor can't, and where
// the configuration cannot work. It does not connect.
func Open(cfg Config) (*Client, error) {
	cfg.setDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	id, err := openIdentity(cfg.DataDir, cfg.TrustDomain, identityOptions{memory: cfg.MemoryKeys, target: cfg.AvailabilityTarget, spread: cfg.SyncInterval, log: cfg.Log})
	if err != nil {
		return nil, err
	}
	c := &Client{
		cfg: cfg, log: cfg.Log, id: id,
		issuers: newIssuers(cfg.ServerAddresses),
		joined:  make(chan struct{}),
		denials: make(chan denial, 1),
		limits:  limits{silence: 75 * time.Second, firstBack: 5 * time.Minute, changeTime: 5 * time.Minute, changeSize: 512 << 20},
	}
	c.links.open = func(addr string, svid *x509svid.SVID) (*link, error) {
		return c.dialTrusted(addr, svid)
	}
	if err := c.canStart(); err != nil {
		return nil, err
	}
	cfg.warn()
	c.sayOtherMethod()
	return c, nil
}

// sayOtherMethod tells of a join_key that is configured and not used yet: its
// token may be over by the time it is.
func (c *Client) sayOtherMethod() {
	svid, _ := c.id.current()
	method, _ := c.cfg.Attestor.Kind()
	if method != nodeattest.JoinKey || usable(svid) == nil || strings.HasPrefix(svid.ID.Path(), "/spire/agent/"+method+"/") {
		return
	}
	c.log.Warn("the agent has joined by another method before, and goes on so while its SVID is good: to join by join_key now, stop it and remove "+dataFile,
		"id", svid.ID, "data_dir", c.cfg.DataDir)
}

// canStart reports what no waiting would mend.
func (c *Client) canStart() error {
	svid, bundle := c.id.current()
	if usable(svid) == nil {
		err := c.cfg.Attestor.Check()
		if err != nil && svid != nil {
			return fmt.Errorf("the SVID of agent %s expired at %s: %w", svid.ID, svid.Certificates[0].NotAfter.UTC().Format(time.RFC3339), err)
		}
		if err != nil && c.cfg.MemoryKeys {
			return fmt.Errorf("the agent's keys are kept in memory alone (KeyManager memory), so it joins at each start: %w", err)
		}
		if err != nil {
			return err
		}
	}
	if bundle == nil && c.cfg.TrustBundle == nil && c.cfg.TrustSource == nil && !c.cfg.InsecureBootstrap {
		return fmt.Errorf("no trust bundle to verify the issuer with: give the output of bundle show at the issuer (-trustBundle)")
	}
	if c.cfg.Rebootstrap.Mode == RebootstrapAlways && svid != nil {
		return c.needsReattestable()
	}
	return nil
}

func (c *Client) source(svid *x509svid.SVID) linkSource {
	return linkSource{svid: svid, td: c.cfg.TrustDomain, bundle: func() *x509bundle.Bundle {
		_, bundle := c.id.current()
		return bundle
	}}
}

// Joined is closed when the agent has an SVID and its trust domain's bundle.
func (c *Client) Joined() <-chan struct{} { return c.joined }

// ID returns the agent's SPIFFE ID, the zero ID before it has joined.
func (c *Client) ID() spiffeid.ID {
	if svid, _ := c.id.current(); svid != nil {
		return svid.ID
	}
	return spiffeid.ID{}
}

// usable returns svid, or nil if it has expired. An expired one is not shown:
// without it the issuer still says whether it is there.
func usable(svid *x509svid.SVID) *x509svid.SVID {
	if svid == nil || !time.Now().Before(svid.Certificates[0].NotAfter) {
		return nil
	}
	return svid
}

// deny replaces what keep has not looked at yet.
func (c *Client) deny(d denial) {
	for {
		select {
		case c.denials <- d:
			return
		default:
		}
		select {
		case <-c.denials:
		default:
		}
	}
}
