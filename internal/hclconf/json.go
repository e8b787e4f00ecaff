package hclconf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// jsonReader reads the JSON that SPIRE's first HCL takes, as the Kubernetes charts write it: objects are blocks, keys of
// nested objects are their labels, and a list of objects is as many blocks.
type jsonReader struct {
	src   []byte
	lines []int // offsets of newlines
	dec   *json.Decoder
	depth int
}

// parseJSON gives the members of the object that src is. The position of a fault is that of the line it was found in.
func parseJSON(src []byte) ([]item, Pos, error) {
	r := &jsonReader{src: src, dec: json.NewDecoder(bytes.NewReader(src))}
	for i, b := range src {
		if b == '\n' {
			r.lines = append(r.lines, i)
		}
	}
	r.dec.UseNumber()
	expr, err := r.value()
	if err != nil {
		return nil, r.fault(err), r.say(err)
	}
	object, ok := expr.(*hclsyntax.ObjectConsExpr)
	if _, end := r.dec.Token(); !ok || !errors.Is(end, io.EOF) {
		return nil, r.pos(), errors.New("want one JSON object, and nothing after it")
	}
	items := make([]item, 0, len(object.Items))
	for _, member := range object.Items {
		name, err := keyName(member.KeyExpr)
		if err != nil {
			return nil, r.pos(), err
		}
		items = append(items, item{name: name, pos: Pos{member.KeyExpr.Range().Start.Line}, expr: member.ValueExpr})
	}
	return items, Pos{}, nil
}

// pos is the line that was read last.
func (r *jsonReader) pos() Pos { return r.at(r.dec.InputOffset()) }

func (r *jsonReader) at(offset int64) Pos {
	line, _ := slices.BinarySearch(r.lines, int(offset))
	return Pos{line + 1}
}

func (r *jsonReader) fault(err error) Pos {
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return r.at(max(0, syntax.Offset-1))
	}
	return r.pos()
}

func (r *jsonReader) say(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the JSON ends too early")
	}
	return fmt.Errorf("not JSON: %w", err)
}

func (r *jsonReader) rng() hcl.Range {
	at := hcl.Pos{Line: r.pos().Line, Column: 1}
	return hcl.Range{Start: at, End: at}
}

// value reads one value; nil is JSON's null.
func (r *jsonReader) value() (hclsyntax.Expression, error) {
	tok, err := r.dec.Token()
	if err != nil {
		return nil, err
	}
	switch tok := tok.(type) {
	case json.Delim:
		if r.depth++; r.depth > maxNesting {
			return nil, fmt.Errorf("more than %d brackets are open here", maxNesting)
		}
		defer func() { r.depth-- }()
		if tok == '{' {
			return r.object()
		}
		return r.list()
	case string:
		return r.literal(cty.StringVal(tok)), nil
	case bool:
		return r.literal(cty.BoolVal(tok)), nil
	case json.Number:
		return r.number(tok)
	}
	return nil, nil
}

func (r *jsonReader) literal(v cty.Value) hclsyntax.Expression {
	return &hclsyntax.LiteralValueExpr{Val: v, SrcRange: r.rng()}
}

func (r *jsonReader) number(n json.Number) (hclsyntax.Expression, error) {
	const longest = 40 // digits: 1e999999999 would be worked out
	f, _, err := big.ParseFloat(clip(n.String()), 10, 256, big.ToNearestEven)
	if err != nil || len(n) > longest {
		return nil, fmt.Errorf("number %s is too long", clip(n.String()))
	}
	return r.literal(cty.NumberVal(f)), nil
}

func (r *jsonReader) object() (hclsyntax.Expression, error) {
	object := &hclsyntax.ObjectConsExpr{SrcRange: r.rng()}
	for r.dec.More() {
		key, err := r.dec.Token() // a string: the decoder takes nothing else here
		if err != nil {
			return nil, err
		}
		name, _ := key.(string)
		keyExpr := r.literal(cty.StringVal(name))
		value, err := r.value()
		if err != nil {
			return nil, err
		}
		if value != nil { // null: as if it weren't there
			object.Items = append(object.Items, hclsyntax.ObjectConsItem{KeyExpr: keyExpr, ValueExpr: value})
		}
	}
	_, err := r.dec.Token()
	return object, err
}

func (r *jsonReader) list() (hclsyntax.Expression, error) {
	list := &hclsyntax.TupleConsExpr{SrcRange: r.rng()}
	for r.dec.More() {
		value, err := r.value()
		if err != nil {
			return nil, err
		}
		if value != nil {
			list.Exprs = append(list.Exprs, value)
		}
	}
	_, err := r.dec.Token()
	return list, err
}
