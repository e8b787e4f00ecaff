package hclconf

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/lanyard-mtls/lanyard/internal/cli/suggest"
)

// item is one thing in a body: key = value (expr) or a block (items). Files of SPIRE's first HCL write a block also as
// key = { … }: such a value becomes a block when the schema wants one.
type item struct {
	name   string
	pos    Pos
	expr   hclsyntax.Expression // nil: a block
	labels []string
	items  []item
}

// Decode reads the file into target, a pointer to a tagged struct. Faults are kept for Err.
func (f *File) Decode(target any) {
	if f.items == nil && len(f.errs) > 0 {
		return // what couldn't be parsed misses nothing
	}
	f.decode(f.items, "", Pos{}, reflect.ValueOf(target).Elem())
}

// DecodeBody reads a block that was kept aside into target. A nil body, a block that isn't there, changes nothing.
func (f *File) DecodeBody(b *Body, target any) {
	if b != nil {
		f.decode(b.items, b.path, b.pos, reflect.ValueOf(target).Elem())
	}
}

func bodyItems(b *hclsyntax.Body) []item {
	items := make([]item, 0, len(b.Attributes)+len(b.Blocks))
	for _, a := range b.Attributes {
		items = append(items, item{name: a.Name, pos: Pos{a.SrcRange.Start.Line}, expr: a.Expr})
	}
	for _, bl := range b.Blocks {
		items = append(items, item{name: bl.Type, pos: Pos{bl.TypeRange.Start.Line}, labels: bl.Labels, items: bodyItems(bl.Body)})
	}
	slices.SortStableFunc(items, func(a, b item) int { return a.pos.Line - b.pos.Line })
	return items
}

// decode fills the struct v from items. path is the dotted path of what holds them, "" for the file.
func (f *File) decode(items []item, path string, at Pos, v reflect.Value) {
	s := schemaOf(v.Type())
	first := map[string]Pos{}
	for _, it := range items {
		it.name = s.canonical(it.name)
		fl, known := s.fields[it.name]
		if !known {
			f.unknown(it, path, s)
			continue
		}
		full := join(path, it.name)
		_, many := blockType(v.Field(fl.index).Type())
		if before, again := first[it.name]; again && !(fl.block && many) {
			f.Errorf(it.pos, "%s is given twice, first in line %d", full, before.Line)
			continue
		}
		first[it.name] = it.pos
		f.seen[full] = it.pos
		if fl.block {
			f.block(it, full, v.Field(fl.index))
		} else {
			f.value(it, full, v.Field(fl.index))
		}
	}
	for _, name := range s.accepts {
		if _, given := first[name]; !given && !s.fields[name].optional {
			f.Errorf(at, "%s is missing", join(path, name))
		}
	}
}

// unknown reports a key or block that the schema hasn't.
func (f *File) unknown(it item, path string, s schema) {
	what, in := "key", path
	if it.expr == nil {
		what = "block"
	}
	if in == "" {
		in = "the file"
	}
	if instead, ok := s.notYet[it.name]; ok {
		label := strings.Join(it.labels, " ")
		if label != "" {
			label = fmt.Sprintf(" %q", label)
		}
		if instead == "" {
			instead = "remove it"
		} else {
			instead += "; remove it"
		}
		f.Errorf(it.pos, "%s%s: known to SPIRE, not supported yet; %s", join(path, it.name), label, instead)
		return
	}
	if near := suggest.Closest(it.name, s.accepts); near != "" {
		f.Errorf(it.pos, "unknown %s %q in %s; did you mean %q?", what, it.name, in, near)
		return
	}
	if len(s.accepts) == 0 {
		f.Errorf(it.pos, "unknown %s %q in %s; remove it", what, it.name, in)
		return
	}
	f.Errorf(it.pos, "unknown %s %q in %s; accepted: %s", what, it.name, in, strings.Join(s.accepts, ", "))
}

// block fills a block field, from a block or from a value written { … }, or a list of those.
func (f *File) block(it item, path string, v reflect.Value) {
	elem, many := blockType(v.Type())
	if it.expr != nil {
		if list, ok := it.expr.(*hclsyntax.TupleConsExpr); ok && many {
			for _, e := range list.Exprs {
				f.block(item{name: it.name, pos: Pos{e.Range().Start.Line}, labels: it.labels, expr: e}, path, v)
			}
			return
		}
		if list, ok := it.expr.(*hclsyntax.TupleConsExpr); ok && len(list.Exprs) == 1 {
			it.expr = list.Exprs[0] // JSON: a block is a list of one
		}
		obj, ok := it.expr.(*hclsyntax.ObjectConsExpr)
		if !ok {
			f.Errorf(it.pos, "%s is a block, not a value: write %s { … }", path, it.name)
			return
		}
		it.items = f.objectItems(obj, path)
	}
	if elem == nil { // *Body
		v.Set(reflect.ValueOf(&Body{items: it.items, path: path, pos: it.pos}))
		return
	}
	made := reflect.New(elem)
	s := schemaOf(elem)
	if inner := it.nested(len(s.labels)); inner != nil {
		for _, one := range inner {
			f.block(one, path, v)
		}
		return
	}
	if len(it.labels) != len(s.labels) {
		f.Errorf(it.pos, "%s has %d names in quotes before its {, want %d", path, len(it.labels), len(s.labels))
		return
	}
	for i, index := range s.labels {
		made.Elem().Field(index).SetString(it.labels[i])
		if s.quoted {
			path += fmt.Sprintf(" %q", it.labels[i])
			continue
		}
		path += "." + it.labels[i]
	}
	if s.pos >= 0 {
		made.Elem().Field(s.pos).Set(reflect.ValueOf(it.pos))
	}
	f.seen[path] = it.pos
	f.decode(it.items, path, it.pos, made.Elem())
	set(v, made)
}

// nested gives the blocks in a block that has too few labels: SPIRE's first HCL takes the names of blocks in it as the labels
// that it misses, KeyManager { disk { … } } for KeyManager "disk" { … }, and JSON has no other way to say it. It is nil where
// something else is in there.
func (it item) nested(labels int) []item {
	if len(it.labels) >= labels {
		return nil
	}
	var inner []item
	for _, one := range it.items {
		if !isBlock(one.expr) || len(it.labels)+1+len(one.labels) > labels {
			return nil
		}
		one.labels = slices.Concat(it.labels, []string{one.name}, one.labels)
		one.name = it.name
		inner = append(inner, one)
	}
	return inner
}

// isBlock tells what is written as a block or can be read as one or several.
func isBlock(expr hclsyntax.Expression) bool {
	switch e := expr.(type) {
	case nil, *hclsyntax.ObjectConsExpr:
		return true
	case *hclsyntax.TupleConsExpr:
		return len(e.Exprs) > 0 && !slices.ContainsFunc(e.Exprs, func(e hclsyntax.Expression) bool { return !isBlock(e) })
	}
	return false
}

// set stores made, a *T, in a field of type T, *T, []T or []*T.
func set(v, made reflect.Value) {
	if v.Kind() == reflect.Slice {
		elem := made
		if v.Type().Elem().Kind() != reflect.Pointer {
			elem = made.Elem()
		}
		v.Set(reflect.Append(v, elem))
		return
	}
	if v.Kind() == reflect.Pointer {
		v.Set(made)
		return
	}
	v.Set(made.Elem())
}

// objectItems gives the members of a { … } value.
func (f *File) objectItems(obj *hclsyntax.ObjectConsExpr, path string) []item {
	var items []item
	for _, member := range obj.Items {
		pos := Pos{member.KeyExpr.Range().Start.Line}
		name, err := keyName(member.KeyExpr)
		if err != nil {
			f.Errorf(pos, "%s: %v", path, err)
			continue
		}
		items = append(items, item{name: name, pos: pos, expr: member.ValueExpr})
	}
	return items
}

func join(path, name string) string {
	switch {
	case path == "":
		return name
	case strings.HasSuffix(path, `"`):
		return path + ": " + name
	}
	return path + "." + name
}
