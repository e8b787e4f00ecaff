package entryfile

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/lanyard-mtls/lanyard/internal/cli/suggest"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// field is one key of an entry: what it makes of its value.
type field func(e *types.Entry, expr hclsyntax.Expression, td string) error

func entryFields() map[string]field {
	return map[string]field{
		"entry_id": texts(func(e *types.Entry, s string) { e.Id = s }),
		"hint":     texts(func(e *types.Entry, s string) { e.Hint = s }),
		"spiffe_id": ids(ParseTemplate, func(e *types.Entry, id *types.SPIFFEID) {
			e.SpiffeId = id
		}),
		"parent_id":                  ids(ParseID, func(e *types.Entry, id *types.SPIFFEID) { e.ParentId = id }),
		"selectors":                  setSelectors,
		"federates_with":             setFederates,
		"dns_names":                  lists(func(e *types.Entry, names []string) { e.DnsNames = names }),
		"x509_svid_ttl":              ttls(func(e *types.Entry, n int32) { e.X509SvidTtl = n }),
		"jwt_svid_ttl":               ttls(func(e *types.Entry, n int32) { e.JwtSvidTtl = n }),
		"expires_at":                 setExpiry,
		"admin":                      bools(func(e *types.Entry, b bool) { e.Admin = b }),
		"downstream":                 bools(func(e *types.Entry, b bool) { e.Downstream = b }),
		"store_svid":                 bools(func(e *types.Entry, b bool) { e.StoreSvid = b }),
		"disable_x509_svid_prefetch": bools(func(e *types.Entry, b bool) { attributes(e).DisableX509SvidPrefetch = b }),
		"jwt_svid_include_jti":       bools(func(e *types.Entry, b bool) { attributes(e).JwtSvidIncludeJti = b }),
	}
}

func entryKeys() []string {
	return []string{
		"spiffe_id", "parent_id", "selectors", "x509_svid_ttl", "jwt_svid_ttl", "federates_with", "dns_names", "admin", "downstream", "store_svid",
		"hint", "expires_at", "disable_x509_svid_prefetch", "jwt_svid_include_jti", "entry_id",
	}
}

func defaultKeys() []string {
	return []string{"parent_id", "selectors", "x509_svid_ttl", "jwt_svid_ttl", "federates_with"}
}

// field takes one key = value of a block.
func (r *reader) field(a *hclsyntax.Attribute, title string, e *types.Entry, td string, known []string) {
	if !slices.Contains(known, a.Name) {
		if title == "defaults" {
			known = append([]string{"trust_domain"}, known...)
		}
		r.errorf(line(a.NameRange), "%s: %s", title, suggest.Unknown("key", a.Name, known))
		return
	}
	if err := entryFields()[a.Name](e, a.Expr, td); err != nil {
		r.errorf(line(a.Expr.Range()), "%s: %s: %v", title, a.Name, err)
	}
}

// text takes a key of the file itself.
func (r *reader) text(a *hclsyntax.Attribute, set func(string)) {
	s, err := text(a.Expr)
	if err != nil {
		r.errorf(line(a.Expr.Range()), "%s: %v", a.Name, err)
		return
	}
	set(s)
}

func attributes(e *types.Entry) *types.Entry_AdditionalAttributes {
	if e.AdditionalAttributes == nil {
		e.AdditionalAttributes = &types.Entry_AdditionalAttributes{}
	}
	return e.AdditionalAttributes
}

var errFilled = errors.New("${…} and %{…} are not filled in here; an ID template is written {{docker:label:app}}")

// literal gives what expr says as it stands: nothing is computed.
func literal(expr hclsyntax.Expression) (cty.Value, error) {
	switch expr := expr.(type) {
	case *hclsyntax.LiteralValueExpr:
		return expr.Val, nil
	case *hclsyntax.TemplateExpr:
		if !expr.IsStringLiteral() && len(expr.Parts) > 0 {
			return cty.NilVal, errFilled
		}
		v, diags := expr.Value(nil)
		if diags.HasErrors() {
			return cty.NilVal, errors.New(diags[0].Detail)
		}
		return v, nil
	case *hclsyntax.TemplateWrapExpr:
		return cty.NilVal, errFilled
	case *hclsyntax.UnaryOpExpr:
		return cty.NilVal, errors.New("is negative")
	}
	return cty.NilVal, errors.New("write the value itself: nothing is computed here")
}

func text(expr hclsyntax.Expression) (string, error) {
	v, err := literal(expr)
	if _, isList := expr.(*hclsyntax.TupleConsExpr); isList || err == nil && (v.IsNull() || v.Type() != cty.String) {
		return "", errors.New(`want text in quotes, "…"`)
	}
	if err != nil {
		return "", err
	}
	return v.AsString(), nil
}

func texts(set func(*types.Entry, string)) field {
	return func(e *types.Entry, expr hclsyntax.Expression, _ string) error {
		s, err := text(expr)
		set(e, s)
		return err
	}
}

func bools(set func(*types.Entry, bool)) field {
	return func(e *types.Entry, expr hclsyntax.Expression, _ string) error {
		v, err := literal(expr)
		if err != nil || v.IsNull() || v.Type() != cty.Bool {
			return errors.New("want true or false")
		}
		set(e, v.True())
		return nil
	}
}

// ids takes a whole SPIFFE ID, or its path where the defaults name the trust domain.
func ids(parse func(string) (*types.SPIFFEID, error), set func(*types.Entry, *types.SPIFFEID)) field {
	return func(e *types.Entry, expr hclsyntax.Expression, td string) error {
		s, err := text(expr)
		if err != nil {
			return err
		}
		full := s
		if strings.HasPrefix(s, "/") {
			if td == "" {
				return fmt.Errorf("%q is a path alone: write spiffe://TRUST-DOMAIN%s, or trust_domain in the defaults block", s, s)
			}
			full = "spiffe://" + td + s
		}
		id, err := parse(full)
		if err != nil {
			return fmt.Errorf("%q: %w", s, err)
		}
		set(e, id)
		return nil
	}
}

func list(expr hclsyntax.Expression) ([]string, error) {
	tuple, ok := expr.(*hclsyntax.TupleConsExpr)
	if !ok {
		return nil, errors.New(`want a list, ["…", "…"]`)
	}
	all := make([]string, 0, len(tuple.Exprs))
	for i, item := range tuple.Exprs {
		s, err := text(item)
		if err != nil {
			return nil, fmt.Errorf("item %d: %w", i+1, err)
		}
		all = append(all, s)
	}
	return all, nil
}

func lists(set func(*types.Entry, []string)) field {
	return func(e *types.Entry, expr hclsyntax.Expression, _ string) error {
		all, err := list(expr)
		set(e, all)
		return err
	}
}
