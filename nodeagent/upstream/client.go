package upstream

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// Config says which issuer to talk to and as whom.
type Config struct {
	TrustDomain spiffeid.TrustDomain
	// DataDir has the state files and is this agent's alone.
	DataDir string
	// ServerAddress is host:port; all addresses of the name are used.
	ServerAddress string
	// ServerAddresses, if not nil, are those of several issuers of the trust
	// domain, and ServerAddress is not used. The agent stays with one while it
	// works, the first to begin with, and goes on to the next when it doesn't.
	ServerAddresses []string
	// Attestor is what the agent joins with.
	Attestor Attestor
	// Version is told to the issuer, such as lanyard/v1.2.3; at most 255 bytes.
	Version string
	// TrustBundle verifies the issuer until its own bundle is known; nil if
	// that is on disk already, or with InsecureBootstrap.
	TrustBundle *x509bundle.Bundle
	// TrustSource has the same, read anew each time that it is needed; nil:
	// TrustBundle.
	TrustSource       BundleSource
	InsecureBootstrap bool
	// Rebootstrap says when to begin anew.
	Rebootstrap Rebootstrap
	// SyncInterval is the time from one poll to the next; 0 is 5 s. An issuer
	// that tells of changes by itself is not polled.
	SyncInterval time.Duration
	// UseSync polls with SyncAuthorizedEntries where the issuer has it, or else
	// with GetAuthorizedEntries; nil is true.
	UseSync *bool
	// AvailabilityTarget is how long the agent is to outlast an issuer that is
	// away: its SVID is renewed so long before it expires, if it lives longer by
	// 12 h at least. 0: it is renewed at half its life.
	AvailabilityTarget time.Duration
	// RequirePQKEM makes connections with X25519MLKEM768 alone, which keeps
	// what is recorded today from tomorrow's quantum computers.
	RequirePQKEM bool
	// MemoryKeys keeps the agent's keys off the disk: it attests anew at each
	// start.
	MemoryKeys bool
	// Attempted, if set, is called after each attempt to be up to date: at the end
	// of a poll, when a stream has brought a change or a sign of life, and when it
	// ends. nil: the agent is up to date. It must not block.
	Attempted func(error)
	// Log may be nil.
	Log *slog.Logger
}

// Client is the agent towards its issuer.
type Client struct {
	cfg   Config
	log   *slog.Logger
	id    *identity
	links links
	// joined is closed when there are an SVID and a bundle.
	joined chan struct{}
	// denials carries the newest word that the issuer refuses the agent.
	denials chan denial
	batch   batchSize
}

// denial is a refusal of the agent itself, and the SVID that met it.
type denial struct {
	reason types.PermissionDeniedDetails_Reason
	svid   *x509svid.SVID
}

// Open reads the state files. It fails where they are damaged or of another
// trust domain, and where the agent has not joined and its Attestor can't. It does
// not connect.
func Open(cfg Config) (*Client, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.SyncInterval == 0 {
		cfg.SyncInterval = 5 * time.Second
	}
	id, err := openIdentity(cfg.DataDir, cfg.TrustDomain)
	if err != nil {
		return nil, err
	}
	c := &Client{
		cfg: cfg, log: cfg.Log, id: id,
		joined:  make(chan struct{}),
		denials: make(chan denial, 1),
	}
	c.links.open = func(svid *x509svid.SVID) (*link, error) {
		return dial(cfg.ServerAddress, svid, c.source(svid).tlsConfig())
	}
	if err := c.canStart(); err != nil {
		return nil, err
	}
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
		if err != nil {
			return err
		}
	}
	if bundle == nil && c.cfg.TrustBundle == nil && !c.cfg.InsecureBootstrap {
		return fmt.Errorf("no trust bundle to verify the issuer with: give the output of bundle show at the issuer (-trustBundle)")
	}
	return nil
}

func (c *Client) source(svid *x509svid.SVID) linkSource {
	return linkSource{svid: svid, td: c.cfg.TrustDomain, bundle: func() *x509bundle.Bundle {
		_, bundle := c.id.current()
		return bundle
	}}
}

// Contact tells how the agent stands with its issuer.
func (c *Client) Contact() Contact {
	return Contact{Address: c.cfg.ServerAddress}
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

// call makes one call that anyone may make.
func (c *Client) call(ctx context.Context, f func(context.Context, *grpc.ClientConn) error) error {
	svid, _ := c.id.current()
	return c.callAs(ctx, svid, f)
}

// agentCall makes one call that the issuer answers to agents only. It takes
// note of what the answer says about this agent.
func (c *Client) agentCall(ctx context.Context, f func(context.Context, *grpc.ClientConn) error) error {
	svid, _ := c.id.current()
	if svid == nil {
		return errNoSVID // joining anew
	}
	err := c.callAs(ctx, svid, f)
	if err == nil {
		return c.id.confirm(svid)
	}
	reason, denied := denialReason(err)
	if reason == types.PermissionDeniedDetails_AGENT_MUST_REATTEST {
		return err // its SVID is good
	}
	if usable(svid) == nil && (status.Code(err) == codes.PermissionDenied || status.Code(err) == codes.Unauthenticated) {
		reason, denied = types.PermissionDeniedDetails_AGENT_EXPIRED, true
	}
	if denied {
		c.deny(denial{reason: reason, svid: svid})
	}
	return err
}

// callAs makes one call as svid, without a certificate if that is not usable.
func (c *Client) callAs(ctx context.Context, svid *x509svid.SVID, f func(context.Context, *grpc.ClientConn) error) error {
	l, done, err := c.links.use(usable(svid))
	if err != nil {
		return err
	}
	defer done()
	err = withTimeout(ctx, func(ctx context.Context) error { return f(ctx, l.conn) })
	if status.Code(err) == codes.DeadlineExceeded && ctx.Err() == nil {
		// The other end may be gone without a word.
		c.links.drop(l)
	}
	return l.explain(err)
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

// jitter spreads d over 10 % to either side.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64()))
}

// pause waits for d, a little more or less, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(jitter(d))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// growing is a time that grows by half with each failure, up to most.
type growing struct{ first, most, last time.Duration }

func (g *growing) next() time.Duration {
	g.last = min(max(g.first, g.last*3/2), g.most)
	return g.last
}

func (g *growing) reset() { g.last = 0 }
