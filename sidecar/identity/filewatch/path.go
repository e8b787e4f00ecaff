package filewatch

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxLinks is how many symbolic links lead to a file at most, as in Linux (path_resolution(7)).
const maxLinks = 40

// directories returns those in which something would have to change for one of paths to mean another file, or the same with
// other contents: the one that each file is in, and that of each symbolic link on the way. Of what isn't there, it is the
// last directory that is.
func directories(paths []string) []string {
	dirs := map[string]bool{}
	for _, path := range paths {
		if abs, err := filepath.Abs(path); err == nil {
			follow(abs, dirs)
		}
	}
	return slices.Sorted(maps.Keys(dirs))
}

func follow(path string, dirs map[string]bool) {
	dir, rest := "/", strings.Split(path, "/")
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			dir = filepath.Dir(dir)
			continue
		}
		at := filepath.Join(dir, name)
		info, err := os.Lstat(at)
		if err != nil || len(rest) == 0 || info.Mode()&os.ModeSymlink != 0 {
			dirs[dir] = true
		}
		if err != nil {
			return
		}
		if info.Mode()&os.ModeSymlink == 0 {
			dir = at
			continue
		}
		target, err := os.Readlink(at)
		if links++; err != nil || links > maxLinks {
			return
		}
		if filepath.IsAbs(target) {
			dir = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
}
