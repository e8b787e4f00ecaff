package conformance

import (
	"errors"
	"strings"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// errNotYet is what to wait for: on SPIRE the effect of a call may come later.
var errNotYet = errors.New("not yet")

// refused expects an error of this code and text. A text that ends in "…" is the beginning: the rest is the cause, in
// the words of a library.
func (c *C) refused(err error, code codes.Code, text string) {
	c.Helper()
	c.status(&types.Status{Code: int32(status.Code(err)), Message: status.Convert(err).Message()}, code, text)
}

// status expects the status of a batch's item.
func (c *C) status(got *types.Status, code codes.Code, text string) {
	c.Helper()
	if got == nil {
		c.Errorf("no status, want %s %q", code, text)
		return
	}
	begin, open := strings.CutSuffix(text, "…")
	if codes.Code(got.Code) != code || got.Message != text && !(open && strings.HasPrefix(got.Message, begin)) {
		c.Errorf("got %s %q, want %s %q", codes.Code(got.Code), got.Message, code, text)
	}
}

// ok expects the status of an item that succeeded: clients read its message.
func (c *C) ok(got *types.Status) {
	c.Helper()
	c.status(got, codes.OK, "OK")
}

// mustOK is ok for what the rest of the check needs.
func (c *C) mustOK(got *types.Status) {
	c.Helper()
	if c.ok(got); c.Failed() {
		c.FailNow()
	}
}

// equal expects equal values; messages are compared by their fields, and selectors have no order.
func (c *C) equal(what string, got, want any) {
	c.Helper()
	if diff := cmp.Diff(want, got, protocmp.Transform(), protocmp.SortRepeated(selectorOrder), cmpopts.EquateComparable(spiffeid.ID{}), cmpopts.EquateEmpty()); diff != "" {
		c.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// reason is the reason in a PermissionDenied, as agents look for it.
func reason(err error) types.PermissionDeniedDetails_Reason {
	for _, detail := range status.Convert(err).Details() {
		if d, ok := detail.(*types.PermissionDeniedDetails); ok {
			return d.GetReason()
		}
	}
	return types.PermissionDeniedDetails_UNKNOWN
}

// pid is an ID as it goes over the wire.
func (e *env) pid(path string) *types.SPIFFEID {
	return &types.SPIFFEID{TrustDomain: e.td.Name(), Path: path}
}

// badToken expects a page token that is none to be refused; SPIRE blames itself where it lists anything but bundles.
func (c *C) badToken(difference string, err error, spire string) {
	c.Helper()
	if c.Differs(difference) {
		c.refused(err, codes.InvalidArgument, "…")
		return
	}
	c.refused(err, codes.Internal, spire)
}

func selectorOrder(a, b *types.Selector) bool {
	return a.GetType()+":"+a.GetValue() < b.GetType()+":"+b.GetValue()
}

// words is the text of a refusal whose reason Lanyard puts in other words than SPIRE.
func (c *C) words(spire, ours string) string {
	c.Helper()
	if c.Differs("words") {
		return ours
	}
	return spire
}
