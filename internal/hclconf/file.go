// Package hclconf owns reading configuration files in the flavour of HCL that SPIRE's operators write: strictly, with every
// error at once, each with file, line, key and what is accepted there. It does not know what the keys mean, and it never
// evaluates: a value is what is written, expressions and ${} are refused.
package hclconf

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

const (
	maxSize    = 256 << 10 // bytes of a file; SPIRE's fully commented samples have 50 KiB
	maxNesting = 64        // brackets open at once: the parser below recurses
	maxErrors  = 20        // reported in one go
)

// Pos is a place in a file. The zero Pos is the file as a whole.
type Pos struct{ Line int }

// File is one configuration file being read: its syntax tree and the errors found so far.
type File struct {
	name  string
	items []item
	errs  []located
	notes []located
	other []error        // faults of files that this one names
	seen  map[string]Pos // dotted path of every key met, "server.bind_port"
}

type located struct {
	pos Pos
	msg string
}

// Decode reads src strictly into target, a pointer to a struct with tags as gohcl has them (`hcl:"key"`,
// `hcl:"key,optional"`, `hcl:"key,block"`, `hcl:"key,label"`). file is the name errors begin with. The error joins every
// fault, a line each. The dotted path of a key below a labelled block is `tunnel.web.listen`, or `tunnel "web": listen` if
// the label's tag is `hcl:"name,label,quoted"`.
func Decode(file string, src []byte, target any) error {
	f := Parse(file, src)
	f.Decode(target)
	return f.Err()
}

// Read parses the file at path. The file is size-bounded (256 KiB). With expandEnv, $NAME and ${NAME} are replaced by the
// environment (an unset one by nothing), and $$ by $, before the file is parsed, as SPIRE does.
func Read(path string, expandEnv func(string) string) (*File, error) {
	fd, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("config file %s does not exist", path)
	case err != nil:
		return nil, fmt.Errorf("config file %s cannot be read: %w", path, errors.Unwrap(err))
	}
	defer fd.Close()
	src, err := io.ReadAll(io.LimitReader(fd, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("config file %s cannot be read: %w", path, errors.Unwrap(err))
	}
	if expandEnv != nil {
		src = []byte(os.Expand(string(src), func(name string) string {
			if name == "$" {
				return "$"
			}
			return expandEnv(name)
		}))
	}
	return Parse(path, src), nil
}

// Parse parses src. Faults of syntax are found by Err, as all others are.
func Parse(file string, src []byte) *File {
	f := &File{name: file, seen: map[string]Pos{}}
	if len(src) > maxSize {
		f.Errorf(Pos{}, "the file has more than %d KiB: this is no configuration file", maxSize>>10)
		return f
	}
	if trimmed := strings.TrimSpace(string(src)); strings.HasPrefix(trimmed, "{") {
		items, at, err := parseJSON(src)
		if err != nil {
			f.Errorf(at, "%v", err)
		}
		f.items = items
		return f
	}
	if line := tooDeep(src); line > 0 {
		f.Errorf(Pos{Line: line}, "more than %d brackets are open here", maxNesting)
		return f
	}
	parsed, diags := hclsyntax.ParseConfig(src, file, hcl.InitialPos)
	if diags.HasErrors() {
		var ok bool
		if f.items, ok = parseHCL1(src); !ok {
			f.syntaxError(diags)
		}
		return f
	}
	f.items = bodyItems(parsed.Body.(*hclsyntax.Body))
	return f
}

// syntaxError keeps the first fault of syntax: those after it mostly follow from it.
func (f *File) syntaxError(diags hcl.Diagnostics) {
	for _, d := range diags {
		if d.Severity != hcl.DiagError {
			continue
		}
		pos := Pos{}
		if d.Subject != nil {
			pos.Line = d.Subject.Start.Line
		}
		detail, _, _ := strings.Cut(d.Detail, "\n")
		detail, _, _ = strings.Cut(detail, ". ")
		f.Errorf(pos, "%s: %s", lowerFirst(d.Summary), lowerFirst(strings.TrimSuffix(detail, ".")))
		return
	}
}

// tooDeep gives the line where more than maxNesting brackets are open, or 0.
func tooDeep(src []byte) int {
	tokens, _ := hclsyntax.LexConfig(src, "", hcl.InitialPos) // faults show again when it is parsed
	depth, prefix := 0, 0
	for _, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl, hclsyntax.TokenQuestion:
			depth++
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenTemplateSeqEnd:
			depth = max(0, depth-1)
		}
		if t.Type == hclsyntax.TokenBang || t.Type == hclsyntax.TokenMinus {
			prefix++
		} else {
			prefix = 0
		}
		if depth > maxNesting || prefix > maxNesting {
			return t.Range.Start.Line
		}
	}
	return 0
}

// Errorf adds a fault found at pos by the caller, whose checks go beyond what the tags say.
func (f *File) Errorf(pos Pos, format string, args ...any) {
	f.errs = append(f.errs, located{pos, fmt.Sprintf(format, args...)})
}

// At is where the key with the dotted path, "server.bind_port", stands; the zero Pos if it doesn't.
func (f *File) At(path string) Pos { return f.seen[path] }

// Has says whether the file sets the key with the dotted path.
func (f *File) Has(path string) bool { _, ok := f.seen[path]; return ok }

// Err joins the faults found so far in the order of their lines, each "FILE:LINE: what"; nil if there are none.
func (f *File) Err() error {
	slices.SortStableFunc(f.errs, func(a, b located) int { return a.pos.Line - b.pos.Line })
	var errs []error
	for i, e := range f.errs {
		if i == maxErrors {
			errs = append(errs, fmt.Errorf("%s: and %d more", f.name, len(f.errs)-maxErrors))
			break
		}
		errs = append(errs, fmt.Errorf("%s: %s", f.place(e.pos), e.msg))
	}
	return errors.Join(append(errs, f.other...)...)
}

// Notef adds something to say about what stands at pos that is no fault.
func (f *File) Notef(pos Pos, format string, args ...any) {
	f.notes = append(f.notes, located{pos, fmt.Sprintf(format, args...)})
}

// Notes are what was added by Notef, in the order of their lines, each "FILE:LINE: what".
func (f *File) Notes() []string {
	slices.SortStableFunc(f.notes, func(a, b located) int { return a.pos.Line - b.pos.Line })
	var all []string
	for _, n := range f.notes {
		all = append(all, fmt.Sprintf("%s: %s", f.place(n.pos), n.msg))
	}
	return all
}

func (f *File) place(pos Pos) string {
	if pos.Line == 0 {
		return f.name
	}
	return fmt.Sprintf("%s:%d", f.name, pos.Line)
}

// Faults counts those found so far.
func (f *File) Faults() int { return len(f.errs) + len(f.other) }

// Sibling is a file of the same name and without faults, to collect some in.
func (f *File) Sibling() *File { return &File{name: f.name, seen: map[string]Pos{}} }

// Include adds the faults of a file that this one names.
func (f *File) Include(other *File) {
	if err := other.Err(); err != nil {
		f.other = append(f.other, err)
	}
}

func lowerFirst(s string) string {
	if len(s) > 1 && s[1] >= 'a' && s[1] <= 'z' || len(s) == 1 || len(s) > 1 && s[1] == ' ' {
		return strings.ToLower(s[:1]) + s[1:]
	}
	return s
}

// Name is the name of the file, as errors begin with it.
func (f *File) Name() string { return f.name }

// Check adds what is wrong with the value of the key with the dotted path, if err is not nil.
func (f *File) Check(path string, err error) {
	if err != nil {
		f.Errorf(f.At(path), "%s: %v", path, err)
	}
}

// CheckAll adds each line of err, at the place of the key of the block that the line begins with, if it begins with one.
func (f *File) CheckAll(block string, err error) {
	if err == nil {
		return
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		key, _, _ := strings.Cut(line, " ")
		if path := join(block, strings.TrimSuffix(key, ":")); f.Has(path) {
			f.Errorf(f.At(path), "%s", join(block, line))
			continue
		}
		f.Errorf(Pos{}, "%s", line)
	}
}
