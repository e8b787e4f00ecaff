package report

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Text writes the tables for a terminal: each figure with its ratio to the base's in parentheses.
func (r *Report) Text(w io.Writer) error {
	for i, rows := range r.bySection() {
		if i > 0 {
			fmt.Fprintln(w)
		}
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintf(table, "%s\t\t%s\n", rows[0].Section, strings.Join(r.peers, "\t"))
		for _, row := range rows {
			fmt.Fprintf(table, "  %s\t%s\t%s\n", row.Name, row.Unit, strings.Join(r.cells(row, "%s (%s)"), "\t"))
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// Markdown writes the same as Markdown tables.
func (r *Report) Markdown(w io.Writer) error {
	var out strings.Builder
	for _, rows := range r.bySection() {
		fmt.Fprintf(&out, "| %s | unit | %s |\n|---|---%s|\n", rows[0].Section, strings.Join(r.peers, " | "),
			strings.Repeat("|--:", len(r.peers)))
		for _, row := range rows {
			fmt.Fprintf(&out, "| %s | %s | %s |\n", row.Name, row.Unit, strings.Join(r.cells(row, "%s (**%s**)"), " | "))
		}
		out.WriteString("\n")
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// cells are a row's figures, those with a ratio in the form given.
func (r *Report) cells(row Row, form string) []string {
	var cells []string
	for _, peer := range r.peers {
		cell := figure(r.Median(row, peer))
		if ratio := ratio(r.Ratio(row, peer)); ratio != "" && !row.Bare && peer != r.base {
			cell = fmt.Sprintf(form, cell, ratio)
		}
		cells = append(cells, cell)
	}
	return cells
}
