package hclconf

import (
	"encoding"
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

var (
	durationType = reflect.TypeFor[time.Duration]()
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// value fills an ordinary field from key = value.
func (f *File) value(it item, path string, v reflect.Value) {
	if it.expr == nil {
		f.Errorf(it.pos, "%s is a value, not a block: write %s = …", path, it.name)
		return
	}
	if err := assign(it.expr, v); err != nil {
		f.Errorf(Pos{it.expr.Range().Start.Line}, "%s: %v", path, err)
	}
}

// assign puts what expr literally says into v.
func assign(expr hclsyntax.Expression, v reflect.Value) error {
	t := v.Type()
	switch {
	case t.Kind() == reflect.Pointer && t != bodyType:
		made := reflect.New(t.Elem())
		if err := assign(expr, made.Elem()); err != nil {
			return err
		}
		v.Set(made)
		return nil
	case t == durationType:
		return assignDuration(expr, v)
	case v.CanAddr() && reflect.PointerTo(t).Implements(textType):
		return assignText(expr, v)
	}
	switch t.Kind() {
	case reflect.Slice:
		return assignList(expr, v)
	case reflect.String:
		s, err := text(expr)
		if err == nil {
			v.SetString(s)
		}
		return err
	case reflect.Bool:
		return assignBool(expr, v)
	case reflect.Int, reflect.Int32, reflect.Int64:
		return assignInt(expr, v)
	default:
		panic(fmt.Sprintf("hclconf: field of type %s", t))
	}
}

func assignDuration(expr hclsyntax.Expression, v reflect.Value) error {
	s, err := text(expr)
	if err != nil {
		return err
	}
	if s == "" { // as if it weren't there, as in SPIRE
		return nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("%q is no duration: write it with a unit, like \"90s\", \"10m\" or \"24h\"", clip(s))
	}
	if d < 0 {
		return fmt.Errorf("%q is negative", clip(s))
	}
	v.SetInt(int64(d))
	return nil
}

// assignText is for types that parse themselves: SPIFFE IDs, trust domains.
func assignText(expr hclsyntax.Expression, v reflect.Value) error {
	s, err := text(expr)
	if err != nil {
		return err
	}
	if s == "" {
		return errors.New("is empty: set it, or remove the line")
	}
	err = v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(s))
	if err != nil && strings.Contains(s, "$") {
		return fmt.Errorf("%q: environment variables are filled in with -expandEnv only", clip(s))
	}
	if err != nil {
		return fmt.Errorf("%q: %w", clip(s), err)
	}
	return nil
}

func assignList(expr hclsyntax.Expression, v reflect.Value) error {
	list, ok := expr.(*hclsyntax.TupleConsExpr)
	if !ok {
		_, kind, err := literal(expr)
		if err != nil {
			return err
		}
		return fmt.Errorf("want a list, [\"…\", \"…\"], got %s", kind)
	}
	made := reflect.MakeSlice(v.Type(), len(list.Exprs), len(list.Exprs))
	for i, e := range list.Exprs {
		if err := assign(e, made.Index(i)); err != nil {
			return fmt.Errorf("item %d: %w", i+1, err)
		}
	}
	v.Set(made)
	return nil
}

func assignBool(expr hclsyntax.Expression, v reflect.Value) error {
	val, kind, err := literal(expr)
	if err != nil {
		return err
	}
	switch { // SPIRE's first HCL takes "true" too
	case val.Type() == cty.Bool:
		v.SetBool(val.True())
	case val.Type() == cty.String && (val.AsString() == "true" || val.AsString() == "false"):
		v.SetBool(val.AsString() == "true")
	default:
		return fmt.Errorf("want true or false, got %s", kind)
	}
	return nil
}

func assignInt(expr hclsyntax.Expression, v reflect.Value) error {
	val, kind, err := literal(expr)
	if err != nil {
		return err
	}
	num := new(big.Float)
	switch { // a number in quotes is common: bind_port = "8081"
	case val.Type() == cty.Number:
		num = val.AsBigFloat()
	case val.Type() == cty.String:
		n, ok := new(big.Int).SetString(clip(val.AsString()), 10)
		if !ok {
			return fmt.Errorf("want a whole number, got %q", clip(val.AsString()))
		}
		num.SetInt(n)
	default:
		return fmt.Errorf("want a whole number, got %s", kind)
	}
	n, accuracy := num.Int64()
	if accuracy != big.Exact || v.OverflowInt(n) {
		return errors.New("want a whole number, this one is a fraction or too large")
	}
	v.SetInt(n)
	return nil
}

// text gives the string that expr is; numbers and booleans are taken as they would be written.
func text(expr hclsyntax.Expression) (string, error) {
	val, kind, err := literal(expr)
	switch {
	case err != nil:
		return "", err
	case val.Type() == cty.String:
		return val.AsString(), nil
	case val.Type() == cty.Number:
		if n, accuracy := val.AsBigFloat().Int64(); accuracy == big.Exact {
			return fmt.Sprint(n), nil
		}
	}
	return "", fmt.Errorf("want text in quotes, got %s", kind)
}

// literal gives the value of an expression that is one literally, and a word for its kind; an error for what would have to
// be evaluated. Lists and objects come back as nil values with their kind.
func literal(expr hclsyntax.Expression) (cty.Value, string, error) {
	switch e := expr.(type) {
	case *hclsyntax.LiteralValueExpr:
		return e.Val, kindOf(e.Val), nil
	case *hclsyntax.UnaryOpExpr:
		if lit, ok := e.Val.(*hclsyntax.LiteralValueExpr); ok && e.Op == hclsyntax.OpNegate && lit.Val.Type() == cty.Number {
			return lit.Val.Negate(), "a number", nil
		}
	case *hclsyntax.TemplateExpr:
		return template(e)
	case *hclsyntax.TemplateWrapExpr:
		return cty.NilVal, "", errTemplate
	case *hclsyntax.TupleConsExpr:
		return cty.DynamicVal, "a list", nil
	case *hclsyntax.ObjectConsExpr:
		return cty.DynamicVal, "a block", nil
	case *hclsyntax.ScopeTraversalExpr:
		if name := hcl.ExprAsKeyword(e); name != "" {
			return cty.NilVal, "", fmt.Errorf("the value needs quotes: \"%s\"", clip(name))
		}
		return cty.NilVal, "", errors.New("the value needs quotes")
	}
	return cty.NilVal, "", errors.New("want a plain value, not an expression")
}

var errTemplate = errors.New("${…} is not evaluated: start with -expandEnv to fill in environment variables, or write $${ for a plain ${")

// template joins the literal parts of a quoted text.
func template(e *hclsyntax.TemplateExpr) (cty.Value, string, error) {
	var b strings.Builder
	for _, part := range e.Parts {
		lit, ok := part.(*hclsyntax.LiteralValueExpr)
		if !ok || lit.Val.Type() != cty.String {
			return cty.NilVal, "", errTemplate
		}
		b.WriteString(lit.Val.AsString())
	}
	return cty.StringVal(b.String()), "text", nil
}

func kindOf(v cty.Value) string {
	switch {
	case v.IsNull():
		return "null"
	case v.Type() == cty.Number:
		return "a number"
	case v.Type() == cty.Bool:
		return "true or false"
	default:
		return "text"
	}
}

// keyName is the name of a member of { … }: a word, or text in quotes.
func keyName(expr hclsyntax.Expression) (string, error) {
	key, ok := expr.(*hclsyntax.ObjectConsKeyExpr)
	if ok {
		if name := hcl.ExprAsKeyword(key.Wrapped); name != "" {
			return name, nil
		}
		return text(key.Wrapped)
	}
	return text(expr)
}

// clip shortens a value to be quoted in a message.
func clip(s string) string {
	const longest = 100
	if len(s) <= longest {
		return s
	}
	return s[:longest] + "…"
}
