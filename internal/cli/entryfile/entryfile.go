// Package entryfile owns reading files of registration entries: Lanyard's own form in HCL, and the JSON that SPIRE's "entry
// create -data" takes. It finds every fault of a file at once and names its line. It does not talk to an issuer.
package entryfile

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// MaxSize bounds a file, in bytes: about 500,000 entries.
const MaxSize = 256 << 20

// maxFaults is how many faults are told at once.
const maxFaults = 20

// File is what a file declares.
type File struct {
	// Set is the name of the set that the entries belong to; "" where the file doesn't say.
	Set     string
	Entries []Declared
}

// Declared is one entry of a file.
type Declared struct {
	// Name is the label of an HCL block, which is unique in its file; "" in JSON.
	Name  string
	Line  int
	Entry *types.Entry
}

// Read reads a file of either form, and checks each entry as an issuer would that sees it alone. name is what errors begin
// with. The error joins every fault, a line each. A file without entries is none.
func Read(name string, data []byte) (*File, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("%s has more than %d MiB: split it", name, MaxSize>>20)
	}
	r := reader{name: name}
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		r.json(data)
	} else {
		r.hcl(data)
	}
	r.check()
	if err := r.err(); err != nil {
		return nil, err
	}
	return &r.file, nil
}

// ReadJSON reads SPIRE's form alone, with at least one entry, and leaves it to the issuer to judge what is in them. ignore is
// told of keys that nobody knows, which SPIRE passes over; nil makes them faults.
func ReadJSON(name string, data []byte, ignore func(warning string)) ([]Declared, error) {
	r := reader{name: name, ignore: ignore}
	r.json(data)
	if len(r.file.Entries) == 0 && len(r.faults) == 0 {
		r.errorf(0, `holds no entries: want {"entries": [{"spiffe_id": …}]}`)
	}
	return r.file.Entries, r.err()
}

// reader is a file being read.
type reader struct {
	name   string
	file   File
	faults []fault
	ignore func(warning string) // see ReadJSON
}

type fault struct {
	line int // 0: the file as a whole
	msg  string
}

func (r *reader) errorf(line int, format string, args ...any) {
	r.faults = append(r.faults, fault{line, fmt.Sprintf(format, args...)})
}

// unknownKey is errorf for a key of JSON that nobody knows; it says whether that is a fault.
func (r *reader) unknownKey(line int, text string) bool {
	if r.ignore == nil {
		r.errorf(line, "%s", text)
		return true
	}
	r.ignore(fmt.Sprintf("%s:%d: %s", r.name, line, text))
	return false
}

func (r *reader) err() error {
	slices.SortStableFunc(r.faults, func(a, b fault) int { return cmp.Compare(a.line, b.line) })
	var errs []error
	for i, f := range r.faults {
		switch {
		case i == maxFaults:
			errs = append(errs, fmt.Errorf("%s: and %d faults more", r.name, len(r.faults)-maxFaults))
		case i > maxFaults:
		case f.line > 0:
			errs = append(errs, fmt.Errorf("%s:%d: %s", r.name, f.line, f.msg))
		default:
			errs = append(errs, fmt.Errorf("%s: %s", r.name, f.msg))
		}
	}
	return errors.Join(errs...)
}

// check judges the entries that could be read: each by itself, and against the others.
func (r *reader) check() {
	names, ids, same := map[string]int{}, map[string]int{}, map[string]int{}
	twice := func(seen map[string]int, key string, d Declared, what string) {
		if first, ok := seen[key]; ok {
			r.errorf(d.Line, "%s stands in line %d already", what, first)
			return
		}
		seen[key] = d.Line
	}
	for _, d := range r.file.Entries {
		e, err := registration.FromProto(d.Entry)
		if err == nil {
			err = e.Validate(trustDomain(e))
		}
		if err != nil {
			r.errorf(d.Line, "%s: %v", d.title(), err)
			continue
		}
		if d.Name != "" {
			twice(names, d.Name, d, fmt.Sprintf("entry %q", d.Name))
		}
		if d.Entry.Id != "" {
			twice(ids, d.Entry.Id, d, fmt.Sprintf("entry_id %q", d.Entry.Id))
		}
		twice(same, Key(d.Entry), d, d.title()+": an entry with the same spiffe_id, parent_id and selectors")
	}
}

// trustDomain is the one the entry must be of to be valid at all; which one the issuer has isn't known here.
func trustDomain(e registration.Entry) spiffeid.TrustDomain {
	if !e.Template.IsZero() {
		return e.Template.TrustDomain()
	}
	return e.SPIFFEID.TrustDomain()
}

func (d Declared) title() string {
	switch {
	case d.Name != "":
		return fmt.Sprintf("entry %q", d.Name)
	case d.Entry.GetSpiffeId() != nil:
		return "entry " + IDString(d.Entry.SpiffeId)
	}
	return "entry"
}

// Key is what makes an entry the same as another one for an issuer: SPIFFE ID, parent ID and selectors.
func Key(e *types.Entry) string {
	sel := make([]string, 0, len(e.Selectors))
	for _, s := range e.Selectors {
		sel = append(sel, s.Type+":"+s.Value)
	}
	slices.Sort(sel)
	return strings.Join(append([]string{IDString(e.SpiffeId), IDString(e.ParentId)}, slices.Compact(sel)...), "\n")
}

// IDString writes a SPIFFE ID or a template of one; "" for nil.
func IDString(id *types.SPIFFEID) string {
	if id == nil {
		return ""
	}
	return "spiffe://" + id.TrustDomain + id.Path
}

// ParseID reads a SPIFFE ID.
func ParseID(s string) (*types.SPIFFEID, error) {
	id, err := spiffeid.FromString(s)
	if err != nil {
		return nil, err
	}
	return registration.IDProto(id), nil
}

// ParseTemplate is ParseID for where a template may stand too: spiffe://td/docker/{{docker:label:app}}.
func ParseTemplate(s string) (*types.SPIFFEID, error) {
	if !strings.Contains(s, "{{") {
		return ParseID(s)
	}
	rest, ok := strings.CutPrefix(s, "spiffe://")
	if !ok {
		return nil, errors.New("scheme is missing or invalid")
	}
	name, path, _ := strings.Cut(rest, "/")
	p := &types.SPIFFEID{TrustDomain: name, Path: "/" + path}
	if _, err := registration.TemplateFromProto(p); err != nil {
		return nil, err
	}
	return p, nil
}
