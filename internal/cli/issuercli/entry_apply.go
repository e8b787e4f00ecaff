package issuercli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/cli/entryfile"
	"github.com/lanyard-mtls/lanyard/internal/cli/entryplan"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
)

// applyFlags are the flags of entry apply.
type applyFlags struct {
	file, set                               string
	dryRun, diff, prune, exitCode, takeNone bool
	scopes                                  cli.Strings
}

const applyLong = `Make the entries what a file says: create what is missing, update what differs and, with -prune, delete what an earlier
apply made and the file has no more. Doing it again changes nothing. A plan is printed first; entries go in batches, and one
that the issuer refuses does not keep the others back.

The file is HCL, or the JSON that "entry create -data" takes:

  set = "team-a"                                            # the name of this set of entries
  defaults {
    trust_domain = "example.org"                            # so that IDs can be paths
    parent_id    = "/node"
  }
  entry "web" {
    spiffe_id = "/web"
    selectors = ["unix:uid:1000"]
  }
  entry "containers" {
    spiffe_id = "/docker/{{docker:label:app}}"              # one entry for all of them, by a selector of each
    selectors = ["docker:label:managed:yes"]
  }

Keys of an entry: spiffe_id, parent_id, selectors; x509_svid_ttl and jwt_svid_ttl (seconds, or "1h"), federates_with,
dns_names, admin, downstream, store_svid, hint, expires_at ("2030-01-31T00:00:00Z"), disable_x509_svid_prefetch,
jwt_svid_include_jti, entry_id.

An entry belongs to the set by its entry ID, SET.HASH, where HASH is of its name (of its SPIFFE ID, parent and selectors in
JSON). What has another ID, made by hand or by another set, is kept up to date where the file has it too, and never pruned.`

func entryApply(env *cli.Env) *cobra.Command {
	v := newVerb(env, "apply", "Make the entries what a file says, and nothing where they are").withOutput()
	v.Long = applyLong
	v.Example = `  lanyard issuer entry apply -f entries.hcl -dry-run
  lanyard issuer entry apply -f entries.hcl -prune
  generate-entries | lanyard issuer entry apply -f - -set team-a -prune -prune-scope spiffe://example.org/team-a`
	var f applyFlags
	f.add(v.Flags())
	v.RunE = func(*cobra.Command, []string) error {
		file, err := f.read(v)
		if err != nil {
			return err
		}
		return v.call(func(ctx context.Context, cc *grpc.ClientConn) error {
			client := entryv1.NewEntryClient(cc)
			existing, err := fetchEntries(ctx, client, "", nil)
			if err != nil {
				return fmt.Errorf("the entries that there are: %w", err)
			}
			plan := entryplan.Make(file.Entries, existing, entryplan.Options{Set: f.set, Prune: f.prune, Scopes: f.scopes})
			return f.carryOut(ctx, v, client, plan)
		})
	}
	return v.Command
}

func (f *applyFlags) add(fs *pflag.FlagSet) {
	fs.StringVar(&f.file, "f", "", "`FILE` with the entries, HCL or JSON; - for standard input")
	fs.StringVar(&f.set, "set", "", "`NAME` of the set the entries belong to (default: what the file says, else "+entryplan.DefaultSet+")")
	fs.BoolVar(&f.dryRun, "dry-run", false, "print the plan and change nothing")
	fs.BoolVar(&f.diff, "diff", false, "print all fields of what is created and deleted too; those that change are always printed")
	fs.BoolVar(&f.prune, "prune", false, "delete entries of the set that the file has no more")
	fs.Var(&f.scopes, "prune-scope", "prune only entries with this SPIFFE `ID` and below; may be given more than once")
	fs.BoolVar(&f.takeNone, "allow-empty", false, "take a file without entries: with -prune, all of the set go")
	fs.BoolVar(&f.exitCode, "exit-code", false, "with -dry-run: exit with 2 where something would change (0: nothing would, 1: it can't be told)")
}

// read reads the file, and settles the name of the set.
func (f *applyFlags) read(v *verb) (*entryfile.File, error) {
	switch {
	case f.file == "":
		return nil, cli.Usagef("-f is missing: the file with the entries, or - for standard input")
	case len(f.scopes) > 0 && !f.prune:
		return nil, cli.Usagef("-prune-scope goes with -prune only")
	case f.exitCode && !f.dryRun:
		return nil, cli.Usagef("-exit-code goes with -dry-run only")
	}
	for _, s := range f.scopes {
		if _, err := entryfile.ParseID(s); err != nil {
			return nil, cli.Usagef("-prune-scope %q is no SPIFFE ID: %v", s, err)
		}
	}
	data, err := readData(v.env.Stdin, f.file)
	if err != nil {
		return nil, err
	}
	file, err := entryfile.Read(inputName(f.file), data)
	if err != nil {
		return nil, err
	}
	if f.set == "" {
		f.set = file.Set
	}
	if f.set == "" {
		f.set = entryplan.DefaultSet
	}
	if len(file.Entries) == 0 && !f.takeNone {
		return nil, cli.Hint(fmt.Errorf("%s holds no entries", inputName(f.file)), "if that is meant, say -allow-empty")
	}
	return file, entryplan.CheckSet(f.set)
}

// carryOut prints the plan, and does it unless this is a dry run.
func (f *applyFlags) carryOut(ctx context.Context, v *verb, client entryv1.EntryClient, plan entryplan.Plan) error {
	report := newApplyReport(f, plan)
	if !v.out.JSON() {
		if err := report.printPlan(v.env.Stdout, f.diff); err != nil {
			return err
		}
	}
	var broken error
	if !f.dryRun {
		broken = report.run(ctx, v, client)
	}
	if err := report.print(v); err != nil {
		return err
	}
	switch {
	case broken != nil:
		return cli.Hint(broken, "what the report says is done is done: apply the file again to go on")
	case report.Failed > 0:
		return fmt.Errorf("%d of %s failed", report.Failed, cli.Count(len(plan.Changes), "change", "changes"))
	case f.exitCode && len(plan.Changes) > 0:
		return cli.ExitCode(errors.Join(cli.Printed()), 2)
	}
	return nil
}
