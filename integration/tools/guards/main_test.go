package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPatchesApply keeps the patches good for the code as it is: that each test fails without its guard is for make guards.
func TestPatchesApply(t *testing.T) {
	root, err := filepath.Abs(filepath.Join("..", "..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	guards, err := read("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range guards {
		t.Run(g.name, func(t *testing.T) {
			if _, err := g.patched(t.Context(), root, t.TempDir()); err != nil {
				t.Error(err)
			}
			files, err := filepath.Glob(filepath.Join(root, g.pkg, "*_test.go"))
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range files {
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if strings.Contains(string(text), "func "+g.test+"(") {
					return
				}
			}
			t.Errorf("there is no test %s in %s", g.test, g.pkg)
		})
	}
}

func TestParse(t *testing.T) {
	const good = "Guard: a guard\nPackage: ./p\nTest: TestP\n\ndiff --git a/p b/p\n--- a/p\n"
	g, err := parse(good)
	if err != nil || g.says != "a guard" || g.pkg != "./p" || g.test != "TestP" || !strings.HasPrefix(g.diff, "diff --git a/p") {
		t.Errorf("parse = %+v, %v", g, err)
	}
	for name, text := range map[string]string{
		"no diff":      "Guard: a\nPackage: ./p\nTest: TestP\n",
		"no test":      strings.Replace(good, "Test: TestP\n", "", 1),
		"unknown line": "Gaurd: a\n" + good,
	} {
		if g, err := parse(text); err == nil {
			t.Errorf("%s: parse = %+v", name, g)
		}
	}
}
