package hclconf

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// NotYet marks keys that SPIRE has and Lanyard has not yet: they get a message of their own instead of "unknown key". One
// field carries several, separated by spaces, and may say why or what to do instead:
//
//	_ hclconf.NotYet `names:"ca_key_type jwt_key_type"`
//	_ hclconf.NotYet `names:"DataStore" instead:"entries are kept in data_dir"`
type NotYet struct{}

// Body is a block kept undecoded, for a schema known only after its label is: see File.DecodeBody.
type Body struct {
	items []item
	path  string
	pos   Pos
}

var (
	posType    = reflect.TypeFor[Pos]()
	bodyType   = reflect.TypeFor[*Body]()
	notYetType = reflect.TypeFor[NotYet]()
)

// schema is what a struct's tags accept.
type schema struct {
	fields  map[string]field
	labels  []int // struct field indexes, in order
	quoted  bool  // paths show the labels as written
	pos     int   // index of a Pos field, or -1
	notYet  map[string]string
	accepts []string // names a user may write, sorted
}

type field struct {
	index           int
	block, optional bool
}

// schemaOf reads the tags of a struct type. It panics on tags it doesn't know: they are in the source, not in the file.
func schemaOf(t reflect.Type) schema {
	s := schema{fields: map[string]field{}, pos: -1, notYet: map[string]string{}}
	for i := range t.NumField() {
		sf := t.Field(i)
		if sf.Type == notYetType {
			for name := range strings.FieldsSeq(sf.Tag.Get("names")) {
				s.notYet[name] = sf.Tag.Get("instead")
			}
			continue
		}
		if sf.Type == posType {
			s.pos = i
			continue
		}
		tag, ok := sf.Tag.Lookup("hcl")
		if !ok {
			continue
		}
		name, kind, _ := strings.Cut(tag, ",")
		switch kind {
		case "label", "label,quoted":
			s.labels = append(s.labels, i)
			s.quoted = s.quoted || kind != "label"
			continue
		case "", "optional", "block":
			s.fields[name] = field{index: i, block: kind == "block", optional: kind != ""}
			s.accepts = append(s.accepts, name)
		default:
			panic(fmt.Sprintf("hclconf: %s.%s: unknown kind in tag %q", t, sf.Name, tag))
		}
	}
	slices.Sort(s.accepts)
	return s
}

// blockType gives the struct type behind a block field: T, *T, []T or []*T; nil for *Body.
func blockType(t reflect.Type) (elem reflect.Type, many bool) {
	if t == bodyType {
		return nil, false
	}
	if t.Kind() == reflect.Slice {
		t, many = t.Elem(), true
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t, many
}

// canonical is the name of the field that name means. SPIRE's first HCL tells no capital letters from small ones.
func (s schema) canonical(name string) string {
	if _, ok := s.fields[name]; ok {
		return name
	}
	for _, known := range s.accepts {
		if strings.EqualFold(known, name) {
			return known
		}
	}
	for known := range s.notYet {
		if strings.EqualFold(known, name) {
			return known
		}
	}
	return name
}
