// Command guards shows that each security guard has a test that would notice its loss: it takes the guard out by a patch
// kept in testdata, and sees that test fail, and without the patch pass. It changes no file: the compiler reads the patched
// copies through an overlay. Arguments are names of patches, without ".patch"; none means all.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		stop()
		os.Exit(1)
	}
}

// guard is one patch: what it takes out, and the test that must notice.
type guard struct {
	name, file string
	says       string // what the guard is, for people
	pkg, test  string
	diff       string
}

func run(ctx context.Context, names []string) error {
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	guards, err := read(filepath.Join(root, "integration", "tools", "guards", "testdata"))
	if err != nil {
		return err
	}
	var failed []error
	for _, g := range guards {
		if len(names) > 0 && !slices.Contains(names, g.name) {
			continue
		}
		if err := g.check(ctx, root); err != nil {
			fmt.Printf("FAIL  %s: %v\n", g.says, err)
			failed = append(failed, fmt.Errorf("%s: %w", g.name, err))
			continue
		}
		fmt.Printf("ok    %s: without it %s fails\n", g.says, g.test)
	}
	return errors.Join(failed...)
}

// read returns the guards of the patches in dir, by name.
func read(dir string) ([]guard, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.patch"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no patch in %s: run this at the top of the repository", dir)
	}
	var guards []guard
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		g, err := parse(string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		g.name, g.file = strings.TrimSuffix(filepath.Base(file), ".patch"), file
		guards = append(guards, g)
	}
	return guards, nil
}

// parse reads the three lines that a patch begins with: Guard, Package and Test. Then comes a diff as git makes it.
func parse(text string) (guard, error) {
	head, diff, found := strings.Cut(text, "\ndiff --git ")
	if !found {
		return guard{}, errors.New(`no line that begins with "diff --git"`)
	}
	g := guard{diff: "diff --git " + diff}
	for line := range strings.Lines(head + "\n") {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "Guard":
			g.says = value
		case "Package":
			g.pkg = value
		case "Test":
			g.test = value
		case "":
		default:
			return guard{}, fmt.Errorf("unknown line %q: want Guard, Package and Test", line)
		}
	}
	if g.says == "" || g.pkg == "" || g.test == "" {
		return guard{}, errors.New("want the lines Guard, Package and Test")
	}
	return g, nil
}

// check runs the test as it is, and then with the guard taken out.
func (g guard) check(ctx context.Context, root string) error {
	if out, err := g.goTest(ctx, root, ""); err != nil {
		return fmt.Errorf("%s fails with the guard in place: %w\n%s", g.test, err, out)
	} else if !strings.Contains(out, "--- PASS: "+g.test) {
		return fmt.Errorf("there is no test %s in %s, or it was skipped:\n%s", g.test, g.pkg, out)
	}
	work, err := os.MkdirTemp("", "lyguard")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	overlay, err := g.patched(ctx, root, work)
	if err != nil {
		return err
	}
	out, err := g.goTest(ctx, root, overlay)
	switch {
	case err == nil:
		return fmt.Errorf("%s passes without the guard: it tests nothing\n%s", g.test, out)
	case !strings.Contains(out, "--- FAIL: "+g.test) && !strings.Contains(out, "panic: "):
		return fmt.Errorf("%s did not get to run without the guard: %w\n%s", g.test, err, out)
	}
	return ctx.Err()
}

// patched makes patched copies of the files in work, and the overlay that names them.
func (g guard) patched(ctx context.Context, root, work string) (string, error) {
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for line := range strings.Lines(g.diff) {
		name, is := strings.CutPrefix(strings.TrimSpace(line), "--- a/")
		if !is {
			continue
		}
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return "", err
		}
		dest := filepath.Join(work, name)
		if err := os.MkdirAll(filepath.Dir(dest), 0o700); err != nil {
			return "", err
		}
		if err := os.WriteFile(dest, text, 0o600); err != nil {
			return "", err
		}
		overlay.Replace[filepath.Join(root, name)] = dest
	}
	apply := exec.CommandContext(ctx, "git", "apply", "--recount", "-")
	apply.Dir, apply.Stdin = work, strings.NewReader(g.diff)
	apply.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(work))
	if out, err := apply.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s does not apply any more, make it anew: %s", g.file, strings.TrimSpace(string(out)))
	}
	file := filepath.Join(work, "overlay.json")
	data, err := json.Marshal(overlay)
	if err != nil {
		return "", err
	}
	return file, os.WriteFile(file, data, 0o600)
}

func (g guard) goTest(ctx context.Context, root, overlay string) (string, error) {
	args := []string{"test", "-count=1", "-v", "-vet=off", "-timeout=2m", "-run", "^" + g.test + "$"}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, g.pkg)...)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	return string(out), err
}
