package issuercli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/cli/entryplan"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// applyReport is the answer of entry apply, as -output json has it.
type applyReport struct {
	Set       string        `json:"set"`
	DryRun    bool          `json:"dry_run"`
	Changes   []applyChange `json:"changes"`
	Unchanged int           `json:"unchanged"`
	Left      int           `json:"left"`
	Failed    int           `json:"failed"`
	plan      entryplan.Plan
}

type applyChange struct {
	Action   entryplan.Action  `json:"action"`
	Name     string            `json:"name,omitempty"`
	EntryID  string            `json:"entry_id"`
	SPIFFEID string            `json:"spiffe_id"`
	Fields   []entryplan.Field `json:"fields"`
	// Done says that the issuer did it; Status is what it answered, if it was asked.
	Done   bool         `json:"done"`
	Status *applyStatus `json:"status,omitempty"`
}

type applyStatus struct {
	Code    int32  `json:"code"`
	Message string `json:"message"`
}

func newApplyReport(f *applyFlags, plan entryplan.Plan) *applyReport {
	r := &applyReport{Set: f.set, DryRun: f.dryRun, Changes: []applyChange{}, Unchanged: plan.Unchanged, Left: plan.Left, plan: plan}
	for _, c := range plan.Changes {
		fields := c.Fields
		if fields == nil {
			fields = []entryplan.Field{}
		}
		r.Changes = append(r.Changes, applyChange{Action: c.Action, Name: c.Name, EntryID: c.Entry.Id, SPIFFEID: idString(c.Entry.SpiffeId), Fields: fields})
	}
	return r
}

// note takes the issuer's answer about a change.
func (r *applyReport) note(i int, s *types.Status) {
	r.Changes[i].Status = &applyStatus{s.GetCode(), s.GetMessage()}
	r.Changes[i].Done = s.GetCode() == int32(codes.OK)
}

// printPlan prints what would be done.
func (r *applyReport) printPlan(w io.Writer, all bool) error {
	var b bytes.Buffer
	for i, c := range r.plan.Changes {
		name := c.Name
		if name == "" {
			name = c.Entry.Id
		}
		fmt.Fprintf(&b, "%s %s  %s  %s\n", map[entryplan.Action]string{entryplan.Create: "+", entryplan.Update: "~", entryplan.Delete: "-"}[c.Action], c.Action, r.Changes[i].SPIFFEID, name)
		for _, f := range c.Fields {
			fmt.Fprintf(&b, "      %-26s %s -> %s\n", f.Name, quoteEmpty(f.Old), quoteEmpty(f.New))
		}
		if !all || c.Action == entryplan.Update {
			continue
		}
		for _, f := range entryplan.Fields(c.Entry)[1:] {
			if !f.Plain() {
				fmt.Fprintf(&b, "      %-26s %s\n", f.Name, f.New)
			}
		}
	}
	if len(r.plan.Changes) > 0 {
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "Set %q: %d to create, %d to update, %d to delete, %d unchanged\n", r.Set,
		r.plan.Count(entryplan.Create), r.plan.Count(entryplan.Update), r.plan.Count(entryplan.Delete), r.Unchanged)
	if r.plan.Adopted > 0 {
		fmt.Fprintf(&b, "%s under an ID that is not of this set: kept up to date, never pruned\n", cli.Count(r.plan.Adopted, "entry is there", "entries are there"))
	}
	if r.Left > 0 {
		fmt.Fprintf(&b, "%s of the set that the file has no more; -prune deletes such entries\n", cli.Count(r.Left, "entry stays", "entries stay"))
	}
	_, err := w.Write(cli.Harmless(b.Bytes()))
	return err
}

func quoteEmpty(s string) string {
	if s == "" {
		return `""`
	}
	return s
}

// print prints what came of it.
func (r *applyReport) print(v *verb) error {
	done := map[entryplan.Action]int{}
	for _, c := range r.Changes {
		switch {
		case c.Done:
			done[c.Action]++
		case c.Status != nil:
			r.Failed++
		}
	}
	if v.out.JSON() {
		return json.NewEncoder(v.env.Stdout).Encode(r)
	}
	for _, c := range r.Changes {
		if c.Status != nil && !c.Done {
			fmt.Fprintf(v.env.Stderr, "Failed to %s entry %s, ID %s (code: %s, msg: %q)\n", c.Action, c.SPIFFEID, c.EntryID, codes.Code(c.Status.Code), c.Status.Message)
		}
	}
	if r.DryRun {
		_, err := fmt.Fprintln(v.env.Stdout, "Dry run: nothing was changed")
		return err
	}
	_, err := fmt.Fprintf(v.env.Stdout, "Done: %d created, %d updated, %d deleted, %d failed\n", done[entryplan.Create], done[entryplan.Update], done[entryplan.Delete], r.Failed)
	return err
}
