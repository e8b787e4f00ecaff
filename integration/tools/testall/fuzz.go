package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"time"
)

// target is one fuzz test and the instrumented test binary that holds it.
type target struct{ pkg, dir, binary, name string }

// fuzzAll runs each fuzz target for the given time, as many at once as there are processors, each on one.
func fuzzAll(ctx context.Context, sum *summary, pkgs []string, each time.Duration) {
	work, err := os.MkdirTemp("", "lyfuzz")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		sum.fail("fuzzing")
		return
	}
	defer os.RemoveAll(work)
	jobs := make(chan target)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for job := range jobs {
				if ctx.Err() == nil {
					fuzz(ctx, sum, job, work, each)
				}
			}
		})
	}
	for _, job := range targets(ctx, sum, pkgs, work) {
		jobs <- job
	}
	close(jobs)
	workers.Wait()
}

// instrument makes the compiler count the branches of this module's packages, by which the fuzzer finds its way. With
// go test -fuzz it would be every package there is: minutes of compiling, and cryptography twenty times slower.
const instrument = "-gcflags=github.com/lanyard-mtls/lanyard/...=-d=libfuzzer"

var fuzzFunc = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`)

// targets finds the packages with fuzz tests by their source, and builds each one's test binary once.
func targets(ctx context.Context, sum *summary, pkgs []string, work string) []target {
	list := exec.CommandContext(ctx, "go", append([]string{"list", "-f", "{{.ImportPath}} {{.Dir}}"}, pkgs...)...)
	out, err := list.Output()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		sum.fail("fuzzing")
		return nil
	}
	var found []target
	for line := range strings.Lines(string(out)) {
		pkg, dir, _ := strings.Cut(strings.TrimSpace(line), " ")
		names := fuzzTests(dir)
		if len(names) == 0 || ctx.Err() != nil {
			continue
		}
		binary := filepath.Join(work, strings.ReplaceAll(pkg, "/", "_")+".test")
		build := exec.CommandContext(ctx, "go", "test", "-c", "-trimpath", "-vet=off", instrument, "-o", binary, pkg)
		build.Env = append(os.Environ(), "CGO_ENABLED=0") // as make build: what is compiled serves both
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Printf("%s\n%v: %v\n", out, build, err)
			sum.fail(pkg + " fuzz build")
			continue
		}
		for _, name := range names {
			found = append(found, target{pkg, dir, binary, name})
		}
	}
	return found
}

func fuzzTests(dir string) []string {
	files, _ := filepath.Glob(filepath.Join(dir, "*_test.go"))
	var names []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for _, match := range fuzzFunc.FindAllSubmatch(text, -1) {
			names = append(names, string(match[1]))
		}
	}
	return names
}

// fuzz runs one target. An input that breaks it is written below its testdata/fuzz, as go test does.
func fuzz(ctx context.Context, sum *summary, job target, work string, each time.Duration) {
	out, err := fuzzOnce(ctx, job, work, each)
	for range 2 {
		if err == nil || !onlyTimeRanOut(out) {
			break
		}
		out, err = fuzzOnce(ctx, job, work, each)
	}
	if err != nil {
		fmt.Printf("%s\n--- FAIL: fuzz %s %s: %v\n", out, job.pkg, job.name, err)
		sum.fail(job.pkg + " " + job.name)
		return
	}
	sum.mu.Lock()
	defer sum.mu.Unlock()
	sum.passed++
	fmt.Printf("fuzz\t%s\t%s\t%s\n", job.pkg, job.name, lastExecs(out))
}

// fuzzOnce keeps the shrinking of inputs that are interesting, not wrong, short: it takes all of the time otherwise.
func fuzzOnce(ctx context.Context, job target, work string, each time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, each+time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, job.binary, "-test.run=^$", "-test.fuzz=^"+job.name+"$", "-test.parallel=1",
		"-test.fuzztime="+each.String(), "-test.fuzzminimizetime=10x",
		"-test.fuzzcachedir="+filepath.Join(work, "corpus", path.Base(job.pkg), job.name))
	cmd.Dir = job.dir
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// onlyTimeRanOut tells the end of the fuzzing time, which Go before 1.27 now and then reports as a failure
// (go.dev/issue/75804), from an input that breaks the target: that one is written to a file, and said to be.
func onlyTimeRanOut(out string) bool {
	return strings.Contains(out, "context deadline exceeded") && !strings.Contains(out, "Failing input written")
}

// lastExecs is the runner's last count of executions.
func lastExecs(out string) string {
	at := strings.LastIndex(out, "execs: ")
	if at < 0 {
		return "no executions counted"
	}
	words, _, _ := strings.Cut(out[at:], " (")
	return words
}
