package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The results stand between these in a Markdown file.
const (
	markBegin = "<!-- results -->"
	markEnd   = "<!-- end of results -->"
)

// machine says in a few lines what the figures were measured on.
func machine() []string {
	lines := []string{fmt.Sprintf("%s, %d cores, %s, Linux %s", processor(), runtime.NumCPU(), memoryTotal(), kernel())}
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		if fields := strings.Fields(string(text)); len(fields) > 2 {
			lines = append(lines, "load average before: "+strings.Join(fields[:3], " "))
		}
	}
	return lines
}

func processor() string {
	if name := field("/proc/cpuinfo", "model name"); name != "" {
		return name
	}
	return runtime.GOARCH
}

func memoryTotal() string {
	var kibi float64
	if _, err := fmt.Sscan(field("/proc/meminfo", "MemTotal"), &kibi); err != nil {
		return "memory unknown"
	}
	return fmt.Sprintf("%.0f GiB", kibi/(1<<20))
}

// field is the first value of a name in a file of "name: value" lines; empty if there is none.
func field(file, name string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, value, found := strings.Cut(lines.Text(), ":"); found && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func kernel() string {
	var names unix.Utsname
	if err := unix.Uname(&names); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(names.Release[:])
}

// about is what stands above the tables.
func (b *bench) about() []string {
	lines := append([]string{}, b.machine...)
	lines = append(lines, fmt.Sprintf("%s, built with %s", b.begun.UTC().Format(time.DateOnly), runtime.Version()))
	for _, peer := range b.peers {
		lines = append(lines, peer.Name+": "+peer.Version)
	}
	return append(lines, fmt.Sprintf("medians of %d rounds; in parentheses the ratio to ghostunnel; memory is measured once", b.set.sizes.rounds))
}

// print writes the tables to out, and to the Markdown file.
func (b *bench) print(out io.Writer) error {
	if b.set.markdown == "-" {
		return b.printMarkdown(out)
	}
	fmt.Fprintln(out, strings.Join(b.about(), "\n"))
	fmt.Fprintln(out)
	if err := b.report.Text(out); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%s\n", strings.Join(b.notes, "\n"))
	if b.set.markdown == "" {
		return nil
	}
	var text strings.Builder
	if err := b.printMarkdown(&text); err != nil {
		return err
	}
	return splice(b.set.markdown, text.String())
}

// splice writes text between the marks in a file; without them it changes nothing.
func splice(file, text string) error {
	before, after, err := cutAtMarks(file)
	if err != nil {
		return err
	}
	return os.WriteFile(file, []byte(before+markBegin+"\n"+text+markEnd+after), 0o644)
}

// cutAtMarks reads what stands before and after the marks.
func cutAtMarks(file string) (before, after string, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", "", err
	}
	before, rest, begins := strings.Cut(string(text), markBegin)
	_, after, ends := strings.Cut(rest, markEnd)
	if !begins || !ends {
		return "", "", fmt.Errorf("%s: no %s and %s to write between", file, markBegin, markEnd)
	}
	return before, after, nil
}

func (b *bench) printMarkdown(out io.Writer) error {
	list := func(lines []string) { fmt.Fprintf(out, "- %s\n\n", strings.Join(lines, "\n- ")) }
	list(b.about())
	if err := b.report.Markdown(out); err != nil {
		return err
	}
	fmt.Fprint(out, "What was left out, and the handshakes seen between the two sides of each pair:\n\n")
	list(b.notes)
	return nil
}
