package entryplan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/cli/entryfile"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// Field is one field that differs: its name as files have it, and both values as people read them.
type Field struct {
	Name string `json:"field"`
	Old  string `json:"old"`
	New  string `json:"new"`
}

// Diff gives what differs between two entries, but for their IDs and what the issuer sets itself.
func Diff(have, want *types.Entry) []Field {
	a, b := Fields(have), Fields(want)
	var changed []Field
	for i := range a {
		if a[i].New != b[i].New {
			changed = append(changed, Field{a[i].Name, a[i].New, b[i].New})
		}
	}
	return changed
}

// Fields gives all fields of an entry, as New, in the order of files.
func Fields(e *types.Entry) []Field {
	var sel []string
	for _, s := range e.Selectors {
		sel = append(sel, s.Type+":"+s.Value)
	}
	return []Field{
		{Name: "spiffe_id", New: entryfile.IDString(e.SpiffeId)},
		{Name: "parent_id", New: entryfile.IDString(e.ParentId)},
		{Name: "selectors", New: set(sel)},
		{Name: "x509_svid_ttl", New: ttl(e.X509SvidTtl)},
		{Name: "jwt_svid_ttl", New: ttl(e.JwtSvidTtl)},
		{Name: "federates_with", New: set(e.FederatesWith)},
		{Name: "dns_names", New: strings.Join(e.DnsNames, " ")}, // the first one is the common name: order counts
		{Name: "admin", New: fmt.Sprint(e.Admin)},
		{Name: "downstream", New: fmt.Sprint(e.Downstream)},
		{Name: "store_svid", New: fmt.Sprint(e.StoreSvid)},
		{Name: "hint", New: e.Hint},
		{Name: "expires_at", New: moment(e.ExpiresAt)},
		{Name: "disable_x509_svid_prefetch", New: fmt.Sprint(e.GetAdditionalAttributes().GetDisableX509SvidPrefetch())},
		{Name: "jwt_svid_include_jti", New: fmt.Sprint(e.GetAdditionalAttributes().GetJwtSvidIncludeJti())},
	}
}

// Plain says whether a field has the value it has where nobody says otherwise.
func (f Field) Plain() bool { return slices.Contains([]string{"", "false", "default", "never"}, f.New) }

func set(values []string) string {
	sorted := slices.Clone(values)
	slices.Sort(sorted)
	return strings.Join(slices.Compact(sorted), " ")
}

func ttl(n int32) string {
	if n == 0 {
		return "default"
	}
	return (time.Duration(n) * time.Second).String()
}

func moment(unix int64) string {
	if unix == 0 {
		return "never"
	}
	return time.Unix(unix, 0).UTC().Format(time.RFC3339)
}
