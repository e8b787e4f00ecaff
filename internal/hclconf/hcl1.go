package hclconf

import (
	"errors"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// hcl1Reader reads what SPIRE's first HCL takes and the second doesn't, since line breaks mean nothing to the first: blocks
// in one line, a brace in the next, quoted keys, blocks within { … } values. It is asked only where the second finds a fault.
type hcl1Reader struct {
	src  []byte
	toks hclsyntax.Tokens // without line breaks and comments
	next int
	open int // brackets
}

var errHCL1 = errors.New("not HCL 1 either")

// parseHCL1 gives the content of src, or false if it is not HCL 1 either.
func parseHCL1(src []byte) ([]item, bool) {
	toks, diags := hclsyntax.LexConfig(src, "", hcl.InitialPos)
	if diags.HasErrors() {
		return nil, false
	}
	r := &hcl1Reader{src: src}
	for _, t := range toks {
		if t.Type != hclsyntax.TokenNewline && t.Type != hclsyntax.TokenComment {
			r.toks = append(r.toks, t)
		}
	}
	items, err := r.body(hclsyntax.TokenEOF)
	return items, err == nil
}

func (r *hcl1Reader) peek() hclsyntax.Token { return r.toks[min(r.next, len(r.toks)-1)] }

// body reads items up to the token end and over it. Commas between them are allowed.
func (r *hcl1Reader) body(end hclsyntax.TokenType) ([]item, error) {
	items := []item{}
	for {
		switch t := r.peek(); t.Type {
		case end:
			r.next++
			return items, nil
		case hclsyntax.TokenComma:
			r.next++
		default:
			more, err := r.item()
			if err != nil {
				return nil, err
			}
			items = append(items, more...)
		}
	}
}

// item reads KEY = VALUE or KEY "LABEL" … { … }. It is several where the value is a list of blocks.
func (r *hcl1Reader) item() ([]item, error) {
	pos := Pos{r.peek().Range.Start.Line}
	var names []string
	for {
		name, ok := r.name()
		if !ok {
			break
		}
		names = append(names, name)
	}
	if len(names) == 0 {
		return nil, errHCL1
	}
	it := item{name: names[0], pos: pos, labels: names[1:]}
	switch t := r.peek(); t.Type {
	case hclsyntax.TokenEqual:
		r.next++
	case hclsyntax.TokenOBrace:
	default:
		return nil, errHCL1
	}
	return r.value(it)
}

// name reads a word, or text in quotes.
func (r *hcl1Reader) name() (string, bool) {
	switch t := r.peek(); t.Type {
	case hclsyntax.TokenIdent:
		r.next++
		return string(t.Bytes), true
	case hclsyntax.TokenOQuote:
		expr, err := r.quoted()
		if err != nil {
			return "", false
		}
		name, err := text(expr)
		return name, err == nil
	}
	return "", false
}

func (r *hcl1Reader) value(it item) ([]item, error) {
	switch t := r.peek(); t.Type {
	case hclsyntax.TokenOBrace:
		var err error
		it.items, err = r.braces()
		return []item{it}, err
	case hclsyntax.TokenOBrack:
		if r.toks[min(r.next+1, len(r.toks)-1)].Type == hclsyntax.TokenOBrace {
			return r.blocks(it)
		}
		expr, err := r.until(hclsyntax.TokenCBrack)
		it.expr = expr
		return []item{it}, err
	}
	expr, err := r.scalar()
	it.expr = expr
	return []item{it}, err
}

func (r *hcl1Reader) braces() ([]item, error) {
	if r.open++; r.open > maxNesting {
		return nil, errHCL1
	}
	defer func() { r.open-- }()
	r.next++
	return r.body(hclsyntax.TokenCBrace)
}

// blocks reads [ { … }, { … } ].
func (r *hcl1Reader) blocks(it item) (all []item, err error) {
	r.next++
	for {
		switch t := r.peek(); t.Type {
		case hclsyntax.TokenOBrace:
			one := it
			one.pos = Pos{t.Range.Start.Line}
			if one.items, err = r.braces(); err != nil {
				return nil, err
			}
			all = append(all, one)
		case hclsyntax.TokenComma:
			r.next++
		case hclsyntax.TokenCBrack:
			r.next++
			return all, nil
		default:
			return nil, errHCL1
		}
	}
}

// scalar reads text in quotes, a number, a word or a heredoc.
func (r *hcl1Reader) scalar() (hclsyntax.Expression, error) {
	switch t := r.peek(); t.Type {
	case hclsyntax.TokenOQuote:
		return r.quoted()
	case hclsyntax.TokenOHeredoc:
		return r.until(hclsyntax.TokenCHeredoc)
	case hclsyntax.TokenMinus:
		r.next++
		return r.expression(t, r.peek())
	case hclsyntax.TokenIdent, hclsyntax.TokenNumberLit:
		return r.expression(t, t)
	}
	return nil, errHCL1
}

func (r *hcl1Reader) quoted() (hclsyntax.Expression, error) { return r.until(hclsyntax.TokenCQuote) }

// until reads an expression that ends with the token end, of the same depth as its first.
func (r *hcl1Reader) until(end hclsyntax.TokenType) (hclsyntax.Expression, error) {
	first := r.peek()
	for depth := 0; ; r.next++ {
		t := r.peek()
		switch t.Type {
		case first.Type:
			depth++
		case hclsyntax.TokenEOF:
			return nil, errHCL1
		case end:
			if depth--; depth == 0 {
				return r.expression(first, t)
			}
		}
	}
}

// expression is what stands from the token first to the token last, which is the next one.
func (r *hcl1Reader) expression(first, last hclsyntax.Token) (hclsyntax.Expression, error) {
	r.next++
	expr, diags := hclsyntax.ParseExpression(r.src[first.Range.Start.Byte:last.Range.End.Byte], "", first.Range.Start)
	if diags.HasErrors() {
		return nil, errHCL1
	}
	return expr, nil
}
