package entryfile

import (
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/zclconf/go-cty/cty"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

func setSelectors(e *types.Entry, expr hclsyntax.Expression, _ string) error {
	all, err := list(expr)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return errors.New("is empty: an entry without selectors would be for every process")
	}
	e.Selectors = nil
	for _, s := range all {
		sel, err := registration.ParseSelector(s)
		if err != nil {
			return err
		}
		e.Selectors = append(e.Selectors, &types.Selector{Type: sel.Type, Value: sel.Value})
	}
	return nil
}

func setFederates(e *types.Entry, expr hclsyntax.Expression, _ string) error {
	all, err := list(expr)
	if err != nil {
		return err
	}
	e.FederatesWith = nil
	for _, s := range all {
		td, err := spiffeid.TrustDomainFromString(s)
		if err != nil {
			return fmt.Errorf("%q: %w", s, err)
		}
		e.FederatesWith = append(e.FederatesWith, td.Name())
	}
	return nil
}

// ttls takes whole seconds or a duration.
func ttls(set func(*types.Entry, int32)) field {
	return func(e *types.Entry, expr hclsyntax.Expression, _ string) error {
		const want = `want seconds, 3600, or a duration, "1h"`
		v, err := literal(expr)
		if err != nil {
			return fmt.Errorf("%w: %s", err, want)
		}
		n, err := whole(v)
		if err != nil && !v.IsNull() && v.Type() == cty.String {
			d, durErr := time.ParseDuration(v.AsString())
			if durErr != nil || d%time.Second != 0 {
				return fmt.Errorf("%q: %s", v.AsString(), want)
			}
			n, err = int64(d/time.Second), nil
		}
		if err != nil || n < 0 || n > 1<<31-1 {
			return errors.New(want)
		}
		set(e, int32(n))
		return nil
	}
}

func setExpiry(e *types.Entry, expr hclsyntax.Expression, _ string) error {
	const want = `want a time, "2030-01-31T00:00:00Z", or Unix seconds`
	v, err := literal(expr)
	if err != nil {
		return fmt.Errorf("%w: %s", err, want)
	}
	if e.ExpiresAt, err = whole(v); err == nil {
		return nil
	}
	if v.IsNull() || v.Type() != cty.String {
		return errors.New(want)
	}
	t, err := time.Parse(time.RFC3339, v.AsString())
	if err != nil {
		return fmt.Errorf("%q: %s", v.AsString(), want)
	}
	e.ExpiresAt = t.Unix()
	return nil
}

func whole(v cty.Value) (int64, error) {
	if v.IsNull() || v.Type() != cty.Number {
		return 0, errors.New("no number")
	}
	n, accuracy := v.AsBigFloat().Int64()
	if accuracy != big.Exact {
		return 0, errors.New("no whole number")
	}
	return n, nil
}
