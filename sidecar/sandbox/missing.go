package sandbox

import (
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"github.com/landlock-lsm/go-landlock/landlock"
	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// Missing says what next needs that a sandbox of r, were it applied now, would refuse, one line each: a configuration that needs more than
// was permitted at the start needs a new start. It is empty where this kernel can't restrict.
func (r Rules) Missing(next Rules) []string {
	abi, err := llsys.LandlockGetABIVersion()
	if err != nil || abi < 1 {
		return nil
	}
	has, wants := compile(r), compile(next)
	missing := has.missingPaths(wants)
	if abi >= abiPorts {
		missing = append(missing, missingPorts("listen on", has.bind, wants.bind)...)
		missing = append(missing, missingPorts("connect to", has.connect, wants.connect)...)
	}
	return missing
}

// missingPaths says what wants grants on paths and g doesn't.
func (g *grants) missingPaths(wants *grants) []string {
	var missing []string
	for _, path := range slices.Sorted(maps.Keys(wants.paths)) {
		rights := wants.paths[path]
		for dir := path; rights != 0; dir = filepath.Dir(dir) {
			rights &^= g.paths[dir]
			if dir == filepath.Dir(dir) {
				break
			}
		}
		switch {
		case rights == 0:
		case rights&^reading == 0:
			missing = append(missing, "read "+path)
		case rights&landlock.AccessFSSet(llsys.AccessFSMakeSock) != 0:
			missing = append(missing, "make a socket in "+path)
		default:
			missing = append(missing, "write to "+path)
		}
	}
	return missing
}

// missingPorts says which ports of wants are not in has; nil is all ports.
func missingPorts(what string, has, wants map[uint16]bool) []string {
	switch {
	case has == nil:
		return nil
	case wants == nil:
		return []string{what + " any TCP port"}
	}
	var missing []string
	for _, port := range slices.SortedFunc(maps.Keys(wants), cmp.Compare[uint16]) {
		if !has[port] {
			missing = append(missing, fmt.Sprintf("%s TCP port %d", what, port))
		}
	}
	return missing
}
