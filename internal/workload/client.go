package workload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	workloadpb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	// maxAnswer bounds one answer, in bytes: some 10,000 SVIDs.
	maxAnswer = 32 << 20
	// firstAnswer is how long a stream may stay silent at its start. An answer is
	// due without delay (SPIFFE Workload API, section 4.3).
	firstAnswer = 30 * time.Second
)

// Config says where the Workload API is.
type Config struct {
	// Addr is unix:///PATH, unix:/PATH or tcp://IP:PORT; empty means the value of
	// $SPIFFE_ENDPOINT_SOCKET.
	Addr string
	// Log gets one record per change of the connection's state; nil discards.
	Log *slog.Logger
	// Now is the clock that says whether an SVID has expired; nil is time.Now.
	Now func() time.Time
	// MinBackoff and MaxBackoff bound the delay between tries; zero is 100 ms and 3 s.
	MinBackoff, MaxBackoff time.Duration
}

// Client keeps the last good answer of a Workload API. It goes on for ever: no
// status code ends it, unlike go-spiffe's, which stops at Canceled and
// InvalidArgument and leaves its owner with an SVID that expires unseen.
type Client struct {
	addr    Addr
	log     *slog.Logger
	now     func() time.Time
	backoff backoff
	hub     *hub
}

// New returns a Client for cfg. It does no I/O; Run does.
func New(cfg Config) (*Client, error) {
	addr, err := ParseAddr(cfg.Addr)
	if err != nil {
		return nil, err
	}
	c := &Client{addr: addr, log: cfg.Log, now: cfg.Now, hub: newHub()}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.now == nil {
		c.now = time.Now
	}
	c.backoff = backoff{min: cfg.MinBackoff, max: cfg.MaxBackoff}
	if c.backoff.min <= 0 {
		c.backoff.min = 100 * time.Millisecond
	}
	if c.backoff.max <= 0 {
		c.backoff.max = 3 * time.Second
	}
	return c, nil
}

// Addr returns the address in use.
func (c *Client) Addr() Addr { return c.addr }

// Run keeps one FetchX509SVID stream open until ctx ends, and then returns nil.
// It must run once only.
func (c *Client) Run(ctx context.Context) error {
	for {
		start := time.Now()
		answered, err := c.stream(ctx)
		if ctx.Err() != nil {
			c.hub.update(func(s *State) { s.Connected = false })
			return nil
		}
		c.lost(err)
		if answered {
			c.backoff.succeeded(time.Since(start))
		}
		timer := time.NewTimer(c.backoff.next())
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// stream makes one connection and reads its answers until it ends, which is
// always with an error.
func (c *Client) stream(ctx context.Context) (answered bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// One connection a stream: gRPC's own reconnecting would be a second, hidden
	// backoff below ours.
	conn, err := grpc.NewClient("passthrough:///"+c.addr.Address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"),
		grpc.WithDisableServiceConfig(),
		grpc.WithContextDialer(c.dial),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
	if err != nil {
		return false, err
	}
	defer conn.Close()

	watchdog := time.AfterFunc(firstAnswer, func() {
		cancel(status.Errorf(codes.DeadlineExceeded, "no answer within %s", firstAnswer))
	})
	defer func() { watchdog.Stop() }()
	// The header keeps server-side request forgery out (SPIFFE Workload Endpoint,
	// section 3).
	call := metadata.AppendToOutgoingContext(ctx, "workload.spiffe.io", "true")
	answers, err := workloadpb.NewSpiffeWorkloadAPIClient(conn).FetchX509SVID(call, &workloadpb.X509SVIDRequest{})
	for err == nil {
		var resp *workloadpb.X509SVIDResponse
		if resp, err = answers.Recv(); err != nil {
			break
		}
		answered = true
		watchdog.Stop()
		watchdog = c.accept(resp, cancel)
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return answered, err
}

// accept publishes resp if it parses. The timer it returns ends the stream when
// the SVIDs held run out without a new answer: an agent that is alive on paper
// only must not keep us from asking again.
func (c *Client) accept(resp *workloadpb.X509SVIDResponse, end context.CancelCauseFunc) *time.Timer {
	parsed, err := parseResponse(resp)
	if err != nil {
		err = fmt.Errorf("answer of the Workload API discarded: %w", err)
		c.log.Error("the Workload API's answer is unusable, keeping what is held", "addr", c.addr.String(), "error", err)
		c.hub.update(func(s *State) { s.Connected, s.Err = true, err })
		parsed = c.State().Context
	} else {
		c.hub.update(func(s *State) {
			*s = State{Context: parsed, Version: s.Version + 1, Updated: c.now(), Connected: true}
		})
		c.log.Info("identity received", "spiffe_id", parsed.Default().ID.String(), "svids", len(parsed.SVIDs),
			"not_after", parsed.Default().Certificates[0].NotAfter, "trust_domains", len(parsed.Bundles))
	}
	left := firstAnswer
	if svid := parsed.Default(); svid != nil {
		// An SVID that is expired on arrival must not end its own stream at once.
		left = max(svid.Certificates[0].NotAfter.Sub(c.now()), c.backoff.max)
	}
	return time.AfterFunc(left, func() { end(errors.New("the SVID expired and the stream brought no new one")) })
}

// lost records the end of a stream or a failed try.
func (c *Client) lost(err error) {
	was := c.State()
	// Only PermissionDenied takes the identity away; everything else may pass.
	denied := status.Code(err) == codes.PermissionDenied
	c.hub.update(func(s *State) {
		s.Connected, s.Err = false, err
		if denied && s.Context != nil {
			s.Context = nil
			s.Version++
		}
	})
	if was.Connected || was.Err == nil || status.Code(was.Err) != status.Code(err) {
		c.log.Warn("no stream from the Workload API, trying again", "addr", c.addr.String(),
			"error", err, "identity_held", was.Context != nil && !denied)
	}
}

func (c *Client) dial(ctx context.Context, _ string) (net.Conn, error) {
	var d net.Dialer
	d.SetMultipathTCP(false)
	return d.DialContext(ctx, c.addr.Network, c.addr.Address)
}
