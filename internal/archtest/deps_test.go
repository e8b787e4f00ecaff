package archtest

import (
	"flag"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write testdata/deps-*.txt as the binaries are now")

// TestLinkedPackagesAreReviewed compares the packages each binary links, the standard library's and our own aside,
// with a file that a reviewer saw. The go command is asked; the test cache can't hide a change from it, as this test also
// read every Go file, go.mod and go.sum (load), and these decide the answer.
func TestLinkedPackagesAreReviewed(t *testing.T) {
	mustLoad(t)
	for dir := range commands {
		t.Run(path.Base(dir), func(t *testing.T) {
			list := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "./"+dir)
			list.Dir = filepath.Join("..", "..")
			list.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=-tags=grpcnotrace")
			var stderr strings.Builder
			list.Stderr = &stderr
			out, err := list.Output()
			if err != nil {
				t.Fatalf("%v: %v\n%s", list, err, &stderr)
			}
			got := slices.DeleteFunc(strings.Fields(string(out)), func(p string) bool { return strings.HasPrefix(p, modulePath) })
			slices.Sort(got)
			file := filepath.Join("testdata", "deps-"+path.Base(dir)+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(strings.Join(got, "\n")+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			reviewed, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.Fields(string(reviewed)), got); diff != "" {
				t.Errorf("%s links other packages than reviewed; if that is meant, go test ./internal/archtest -update (-reviewed +now):\n%s", dir, diff)
			}
		})
	}
}
