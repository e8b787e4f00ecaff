package report

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func sample() *Report {
	r := New("ghostunnel", []string{"ghostunnel", "lanyard", "stunnel"}, []string{"nothing", "bulk"})
	cpu := Row{Section: "bulk", Name: "8 connections", Unit: "CPU s/GB"}
	back := Row{Section: "memory", Name: "after closing", Unit: "KiB", Bare: true}
	r.Add(back, "ghostunnel", 1234.4) // its section is not named, so it comes after those that are
	for _, v := range []float64{1.6, 1.5, 9} {
		r.Add(cpu, "ghostunnel", v)
		r.Add(cpu, "lanyard", v/2)
	}
	r.Add(back, "lanyard", 0)
	r.Add(Row{Section: "bulk", Name: "side figure", Unit: "GB/s", Bare: true}, "stunnel", 12.34)
	return r
}

func TestText(t *testing.T) {
	var got strings.Builder
	if err := sample().Text(&got); err != nil {
		t.Fatal(err)
	}
	want := `
bulk                       ghostunnel  lanyard      stunnel
  8 connections  CPU s/GB  1.60        0.80 (0.50)  -
  side figure    GB/s      -           -            12.3

memory              ghostunnel  lanyard  stunnel
  after closing  KiB  1234        0.00     -
`
	if diff := cmp.Diff(squeeze(want), squeeze("\n"+got.String())); diff != "" {
		t.Error(diff)
	}
}

// squeeze makes runs of spaces one: their number is the tabwriter's affair.
func squeeze(text string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return lines
}

func TestMarkdown(t *testing.T) {
	var got strings.Builder
	if err := sample().Markdown(&got); err != nil {
		t.Fatal(err)
	}
	want := `| bulk | unit | ghostunnel | lanyard | stunnel |
|---|---|--:|--:|--:|
| 8 connections | CPU s/GB | 1.60 | 0.80 (**0.50**) | - |
| side figure | GB/s | - | - | 12.3 |

| memory | unit | ghostunnel | lanyard | stunnel |
|---|---|--:|--:|--:|
| after closing | KiB | 1234 | 0.00 | - |

`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Error(diff)
	}
}

func TestMedianAndSpread(t *testing.T) {
	r := New("a", []string{"a"}, nil)
	row := Row{Name: "x"}
	if !math.IsNaN(r.Median(row, "a")) || !math.IsNaN(r.Spread(row, "a")) || !math.IsNaN(r.Ratio(row, "a")) {
		t.Error("figures of no samples")
	}
	for i, want := range []float64{4, 3, 4, 5} { // of 4; 4 2; 4 2 8; 4 2 8 6
		r.Add(row, "a", []float64{4, 2, 8, 6}[i])
		if got := r.Median(row, "a"); got != want {
			t.Errorf("median of %d samples is %v, want %v", i+1, got, want)
		}
	}
	if got := r.Spread(row, "a"); got != 6.0/5 {
		t.Errorf("spread %v", got)
	}
	if middle, largest, whose := sample().Spreads(); middle != (9-1.5)/1.6 || largest != middle || whose != "ghostunnel, bulk: 8 connections" {
		t.Errorf("spreads %v, %v of %q", middle, largest, whose)
	}
	if middle, largest, whose := New("a", nil, nil).Spreads(); middle != 0 || largest != 0 || whose != "" {
		t.Errorf("spreads of nothing: %v, %v of %q", middle, largest, whose)
	}
}

func TestFigures(t *testing.T) {
	for value, want := range map[float64]string{
		0: "0.00", 0.123: "0.12", 9.994: "9.99", 9.996: "10.0", 99.94: "99.9", 99.96: "100", 12345.6: "12346", -3.14159: "-3.14",
	} {
		if got := figure(value); got != want {
			t.Errorf("figure(%v) = %q, want %q", value, got, want)
		}
	}
}

func TestRatios(t *testing.T) {
	for value, want := range map[float64]string{math.NaN(): "", math.Inf(1): "", 0: "0.00", 0.0016: "0.002", 0.0149: "0.01", 1.5: "1.50", -0.28: "-0.28"} {
		if got := ratio(value); got != want {
			t.Errorf("ratio(%v) = %q, want %q", value, got, want)
		}
	}
}

func TestJSON(t *testing.T) {
	var got strings.Builder
	if err := sample().JSON(&got); err != nil {
		t.Fatal(err)
	}
	var figures []Figure
	if err := json.Unmarshal([]byte(got.String()), &figures); err != nil {
		t.Fatal(err)
	}
	want := []Figure{
		{"bulk", "8 connections", "CPU s/GB", "ghostunnel", 1.6, 1}, {"bulk", "8 connections", "CPU s/GB", "lanyard", 0.8, 0.5},
		{"bulk", "side figure", "GB/s", "stunnel", 12.34, 0},
		{"memory", "after closing", "KiB", "ghostunnel", 1234.4, 0}, {"memory", "after closing", "KiB", "lanyard", 0, 0},
	}
	if diff := cmp.Diff(want, figures); diff != "" {
		t.Error(diff)
	}
}
