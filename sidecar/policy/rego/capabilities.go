package rego

import (
	"log/slog"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
	opa "github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown/print"
)

// Withheld are the functions of the language that are not there, as they reach beyond the policy and its input: to the
// network, the environment, or, by the references in a schema, to files and URLs. A policy that uses one is not loaded.
func Withheld() []string {
	return []string{"http.send", "net.lookup_ip_addr", "opa.runtime", "json.match_schema", "json.verify_schema"}
}

// capabilities are the language without what is withheld.
func capabilities(version ast.RegoVersion) *ast.Capabilities {
	c := ast.CapabilitiesForThisVersion(ast.CapabilitiesRegoVersion(version))
	c.Builtins = slices.DeleteFunc(c.Builtins, func(b *ast.Builtin) bool { return slices.Contains(Withheld(), b.Name) })
	c.AllowNet = []string{} // nil would be everywhere
	return c
}

// options are what every policy is compiled with.
func (e *Engine) options() []func(*opa.Rego) {
	return []func(*opa.Rego){
		opa.Capabilities(capabilities(ast.RegoV1)),
		opa.EnablePrintStatements(true),
		opa.PrintHook(printer{e.log}),
	}
}

// printer takes what a policy prints to the log, at level debug.
type printer struct{ log *slog.Logger }

// Print implements print.Hook.
func (p printer) Print(c print.Context, message string) error {
	p.log.LogAttrs(c.Context, slog.LevelDebug, "policy printed", slog.String("text", shorten(message)))
	return nil
}
