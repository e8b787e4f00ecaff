package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"unicode"

	"github.com/spf13/pflag"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// Output is SPIRE's flag -output: pretty or json.
type Output struct{ choice Choice }

// AddFlag adds the flag to a verb.
func (o *Output) AddFlag(fs *pflag.FlagSet) {
	o.choice = Choice{Value: "pretty", Accepts: []string{"pretty", "json"}}
	fs.Var(&o.choice, "output", "`FORMAT` of the answer: pretty, for people, or json, in one line")
}

// JSON says whether json was asked for.
func (o *Output) JSON() bool { return o.choice.Value == "json" }

// Proto prints a message: as JSON, or by pretty.
func (o *Output) Proto(w io.Writer, msg proto.Message, pretty func(w io.Writer)) error {
	if !o.JSON() {
		return buffered(w, pretty)
	}
	raw, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(msg)
	if err != nil {
		return err
	}
	// protojson varies its spaces on purpose; and SPIRE leaves out what is null.
	var tree any
	if err := json.Unmarshal(raw, &tree); err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(withoutNulls(tree))
}

// Struct prints v: as JSON, or by pretty.
func (o *Output) Struct(w io.Writer, v any, pretty func(w io.Writer)) error {
	if !o.JSON() {
		return buffered(w, pretty)
	}
	return json.NewEncoder(w).Encode(v)
}

// buffered writes what pretty prints in one go, and says if that failed.
func buffered(w io.Writer, pretty func(w io.Writer)) error {
	var b bytes.Buffer
	pretty(&b)
	_, err := w.Write(Harmless(b.Bytes()))
	return err
}

// Harmless takes out what could move a terminal's cursor or worse: agents and others who are not trusted to choose it choose
// some of what is printed.
func Harmless(text []byte) []byte {
	return bytes.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return unicode.ReplacementChar
		}
		return r
	}, text)
}

func withoutNulls(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, member := range v {
			if member == nil {
				delete(v, key)
				continue
			}
			v[key] = withoutNulls(member)
		}
	case []any:
		kept := v[:0]
		for _, member := range v {
			if member != nil {
				kept = append(kept, withoutNulls(member))
			}
		}
		return kept
	}
	return v
}

// Count words a number of things: 1 entry, 2 entries.
func Count(n int, one, many string) string {
	if n == 1 {
		return fmt.Sprintf("%d %s", n, one)
	}
	return fmt.Sprintf("%d %s", n, many)
}
