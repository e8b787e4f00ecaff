package upstream

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// issuers are the addresses of the trust domain's issuers, one of which is in use.
// They are safe for concurrent use.
type issuers struct {
	addrs []string // at least one

	mu sync.Mutex
	at int
}

func newIssuers(addrs []string) *issuers { return &issuers{addrs: addrs} }

func (is *issuers) current() string {
	is.mu.Lock()
	defer is.mu.Unlock()
	return is.addrs[is.at]
}

// leave goes on to the address after addr, if addr is the one in use still, and
// reports whether it did.
func (is *issuers) leave(addr string) bool {
	is.mu.Lock()
	defer is.mu.Unlock()
	if is.addrs[is.at] != addr || len(is.addrs) == 1 {
		return false
	}
	is.at = (is.at + 1) % len(is.addrs)
	return true
}

// home returns the first address where another is in use.
func (is *issuers) home() (addr string, away bool) {
	is.mu.Lock()
	defer is.mu.Unlock()
	return is.addrs[0], is.at != 0
}

func (is *issuers) goHome() {
	is.mu.Lock()
	defer is.mu.Unlock()
	is.at = 0
}

// leave has calls go to another issuer than that at addr, which has failed.
func (c *Client) leave(ctx context.Context, addr string, because error) {
	if c.issuers.leave(addr) {
		level := slog.LevelDebug
		if c.wander.now() { // with all of them away, each call goes round
			level = slog.LevelInfo
		}
		c.log.Log(ctx, level, "going on to another issuer", "from", addr, "to", c.issuers.current(), "reason", reason(because))
		c.moved.fire()
	}
}

// elsewhere reports whether err is about the issuer that was asked, so that
// another may do better.
func elsewhere(err error) bool {
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.DeadlineExceeded
}

// round does try with the issuer in use and, while the one that was asked is not
// there, with each of the others, once. try returns the address that it asked.
func (c *Client) round(ctx context.Context, try func() (addr string, err error)) error {
	var failed roundError
	for range c.issuers.addrs {
		addr, err := try()
		if err == nil || ctx.Err() != nil || !elsewhere(err) {
			return err
		}
		failed = append(failed, addressError{addr, err})
		c.leave(ctx, addr, err)
	}
	if len(failed) == 1 {
		return failed[0].err
	}
	return failed
}

// roundError says why each of several issuers failed.
type roundError []addressError

type addressError struct {
	addr string
	err  error
}

func (e roundError) Error() string {
	texts := make([]string, len(e))
	for i, failed := range e {
		texts[i] = fmt.Sprintf("%s: %s", failed.addr, reason(failed.err))
	}
	return strings.Join(texts, "; ")
}

func (e roundError) Unwrap() []error {
	errs := make([]error, len(e))
	for i, failed := range e {
		errs[i] = failed.err
	}
	return errs
}

// GRPCStatus is as if the last one were the only one.
func (e roundError) GRPCStatus() *status.Status {
	return status.New(status.Code(e[len(e)-1].err), e.Error())
}

// returnHome looks now and then whether the first issuer is there again. Where it
// keeps failing as soon as it is in use again, it does so less often.
func (c *Client) returnHome(ctx context.Context) {
	if len(c.issuers.addrs) == 1 {
		return
	}
	wait := growing{first: c.limits.firstBack, most: 12 * c.limits.firstBack}
	at := wait.next()
	var returned time.Time
	for pause(ctx, at) == nil {
		addr, away := c.issuers.home()
		if !away {
			if time.Since(returned) > wait.most {
				wait.reset()
				at = wait.next()
			}
			continue
		}
		if !returned.IsZero() {
			at = wait.next()
		}
		if err := c.probe(ctx, addr); err != nil {
			c.log.Debug("the first issuer is not there yet", "issuer", addr, "reason", reason(err))
			continue
		}
		returned = time.Now()
		c.log.Info("the first issuer is there again", "issuer", addr)
		c.issuers.goHome()
		c.moved.fire()
	}
}

// probe asks the issuer at addr for the least there is.
func (c *Client) probe(ctx context.Context, addr string) error {
	svid, _ := c.id.current()
	l, err := c.links.open(addr, usable(svid))
	if err != nil {
		return err
	}
	defer l.conn.Close()
	return l.explain(withTimeout(ctx, c.patience(), func(ctx context.Context) error {
		_, err := bundlev1.NewBundleClient(l.conn).GetBundle(ctx, &bundlev1.GetBundleRequest{OutputMask: &types.BundleMask{SequenceNumber: true}})
		return err
	}))
}
