package issuercli

import (
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// printEntry writes SPIRE's block for an entry.
func printEntry(w io.Writer, e *types.Entry) {
	line := func(label string, value any) { fmt.Fprintf(w, "%-24s: %v\n", label, value) }
	flag := func(label string, set bool) {
		if set {
			line(label, true)
		}
	}
	ttl := func(label string, n int32) {
		if n == 0 {
			line(label, "default")
			return
		}
		line(label, n)
	}
	id := e.Id
	if id == "" {
		id = "(none)"
	}
	line("Entry ID", id)
	line("SPIFFE ID", idString(e.SpiffeId))
	line("Parent ID", idString(e.ParentId))
	line("Revision", e.RevisionNumber)
	flag("Downstream", e.Downstream)
	ttl("X509-SVID TTL", e.X509SvidTtl)
	ttl("JWT-SVID TTL", e.JwtSvidTtl)
	if e.ExpiresAt != 0 {
		line("Expiration time", time.Unix(e.ExpiresAt, 0).UTC())
	}
	for _, s := range e.Selectors {
		line("Selector", s.Type+":"+s.Value)
	}
	for _, td := range e.FederatesWith {
		line("FederatesWith", td)
	}
	for _, name := range e.DnsNames {
		line("DNS name", name)
	}
	flag("Admin", e.Admin)
	flag("StoreSvid", e.StoreSvid)
	if e.Hint != "" {
		line("Hint", e.Hint)
	}
	flag("DisableX509SvidPrefetch", e.AdditionalAttributes.GetDisableX509SvidPrefetch())
	flag("JwtSvidIncludeJti", e.AdditionalAttributes.GetJwtSvidIncludeJti())
	fmt.Fprintln(w)
}

// entryResult is what BatchCreateEntry and BatchUpdateEntry give for each entry.
type entryResult interface {
	GetStatus() *types.Status
	GetEntry() *types.Entry
}

// printResults prints the entries that were changed on out, and on errOut those that weren't, with the reason.
func printResults[R entryResult](out, errOut io.Writer, verb string, results []R) {
	for _, r := range results {
		if r.GetStatus().GetCode() == int32(codes.OK) {
			printEntry(out, r.GetEntry())
		}
	}
	for _, r := range results {
		if s := r.GetStatus(); s.GetCode() != int32(codes.OK) {
			fmt.Fprintf(errOut, "Failed to %s the following entry (code: %s, msg: %q):\n", verb, codes.Code(s.GetCode()), s.GetMessage())
			printEntry(errOut, r.GetEntry())
		}
	}
}

// failed is the error of a batch in which something failed.
func failed[R interface{ GetStatus() *types.Status }](verb, what string, results []R) error {
	for _, r := range results {
		if r.GetStatus().GetCode() != int32(codes.OK) {
			return fmt.Errorf("failed to %s one or more %s", verb, what)
		}
	}
	return nil
}
