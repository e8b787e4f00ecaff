package rego

import (
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
)

// longest is how many bytes of what OPA says go into a message.
const longest = 512

func shorten(s string) string {
	if len(s) <= longest {
		return s
	}
	end := longest
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "..."
}

// oneLine is the first of OPA's errors in one line, and how to mend the usual one.
func oneLine(err error) string {
	text := err.Error()
	if many, ok := errors.AsType[ast.Errors](err); ok && len(many) > 0 {
		text = many[0].Error()
	}
	text = strings.TrimPrefix(strings.TrimSpace(text), "1 error occurred: ")
	line, _, _ := strings.Cut(text, "\n")
	for _, name := range Withheld() {
		if strings.HasSuffix(line, "undefined function "+name) {
			line += ", which is withheld: a policy decides by its input and its own data"
		}
	}
	return shorten(strings.TrimSuffix(line, ":"))
}

// reason is oneLine without the path, which the message has already.
func reason(path string, err error) string {
	line := oneLine(err)
	for _, before := range []string{"open ", "read ", "stat "} {
		line = strings.TrimPrefix(line, before+path+": ")
	}
	if at, ok := strings.CutPrefix(line, path+":"); ok {
		line = "line " + at
	}
	return strings.TrimPrefix(line, path+"/")
}
