package adminapi

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// printable makes all texts of a message such that a message can have them, and a
// terminal can show them as what they are. Processes choose some, such as the path
// of their executable: one that is not UTF-8 would keep all of the answer back,
// and one with line ends or a terminal's commands in it would tell the operator
// what it likes.
func printable(m protoreflect.Message) {
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		text, message := field.Kind() == protoreflect.StringKind, field.Kind() == protoreflect.MessageKind
		switch {
		case field.IsMap(): // there is none
		case field.IsList():
			for i := range v.List().Len() {
				switch one := v.List().Get(i); {
				case text:
					v.List().Set(i, protoreflect.ValueOfString(escape(one.String())))
				case message:
					printable(one.Message())
				}
			}
		case text:
			m.Set(field, protoreflect.ValueOfString(escape(v.String())))
		case message:
			printable(v.Message())
		}
		return true
	})
}

// escape writes what can't be printed as a Go string has it.
func escape(text string) string {
	if utf8.ValidString(text) && !strings.ContainsFunc(text, unprintable) {
		return text
	}
	var b strings.Builder
	for len(text) > 0 {
		r, n := utf8.DecodeRuneInString(text)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, text[0])
		case unprintable(r):
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		default:
			b.WriteRune(r)
		}
		text = text[n:]
	}
	return b.String()
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }
