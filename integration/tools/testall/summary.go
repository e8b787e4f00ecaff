package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"
)

// event is one line of go test -json (see go doc cmd/test2json).
type event struct {
	Action, Package, ImportPath, Test, Output string
}

// summary collects what the runs said. Its fields are guarded by mu while fuzz targets run side by side.
type summary struct {
	mu             sync.Mutex
	passed, failed int
	skips          []string
	broken         []string            // what failed, by name
	output         map[string][]string // of tests and packages still running, by package and test
}

func newSummary() *summary { return &summary{output: map[string][]string{}} }

func (s *summary) ok() bool { return len(s.broken) == 0 }

// fail notes a failure that no test event counts.
func (s *summary) fail(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed++
	s.broken = append(s.broken, name)
}

// readSkips takes over what the installer could not have.
func (s *summary) readSkips(file string) {
	if text, err := os.ReadFile(file); err == nil {
		s.skips = append(s.skips, strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' })...)
	}
}

// test runs one go test -json and follows its events.
func (s *summary) test(ctx context.Context, args []string) {
	if ctx.Err() != nil {
		return
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		s.fail("go test")
		return
	}
	before := len(s.broken)
	s.follow(pipe)
	if err := cmd.Wait(); err != nil && len(s.broken) == before {
		fmt.Fprintln(os.Stderr, err)
		s.fail("go test: " + err.Error())
	}
}

func (s *summary) follow(r io.Reader) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Println(lines.Text())
			continue
		}
		s.take(e)
	}
}

func (s *summary) take(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "build-output":
		fmt.Print(e.Output)
	case "output":
		if e.Test == "" && closing(e.Output) {
			fmt.Print(e.Output)
			break
		}
		s.output[key] = append(s.output[key], e.Output)
	case "pass", "fail", "skip":
		s.end(e, s.output[key])
		delete(s.output, key)
	}
}

// end counts a finished test, or a package that failed outside its tests.
func (s *summary) end(e event, output []string) {
	name := strings.TrimSpace(strings.TrimPrefix(e.Package, "github.com/lanyard-mtls/lanyard/") + " " + e.Test)
	switch {
	case e.Action == "fail":
		fmt.Print(strings.Join(output, ""))
		s.broken = append(s.broken, name)
		if e.Test != "" {
			s.failed++
		}
	case e.Test == "":
	case e.Action == "skip":
		s.skips = append(s.skips, name+": "+reason(output))
	default:
		s.passed++
	}
}

// closing tells the lines go test ends a package with.
func closing(line string) bool {
	return slices.ContainsFunc([]string{"ok  \t", "FAIL\t", "?   \t"}, func(prefix string) bool {
		return strings.HasPrefix(line, prefix)
	})
}

// reason is what a skipped test said: its output less the file position and go test's own lines.
func reason(output []string) string {
	var words []string
	for _, line := range output {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "===") || strings.HasPrefix(line, "--- SKIP") {
			continue
		}
		if _, after, ok := strings.Cut(line, ".go:"); ok {
			_, line, _ = strings.Cut(after, ": ")
		}
		words = append(words, line)
	}
	return cmp.Or(strings.Join(words, " "), "no reason given")
}

func (s *summary) print(took time.Duration) {
	fmt.Println()
	for _, skip := range s.skips {
		fmt.Println("SKIP", skip)
	}
	for _, name := range s.broken {
		fmt.Println("FAIL", name)
	}
	fmt.Printf("took %v\n", took.Round(time.Second))
	fmt.Printf("%d passed, %d failed, %d skipped\n", s.passed, max(s.failed, len(s.broken)), len(s.skips))
}
