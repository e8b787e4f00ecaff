package workloadattest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

// unixType is the type of this attestor's selectors.
const unixType = "unix"

func (a *Attestor) ownerSelectors(st procStatus) []registration.Selector {
	var sel []registration.Selector
	sel = appendID(sel, "uid", "user", st.UID, a.users)
	sel = appendID(sel, "gid", "group", st.GID, a.groups)
	for _, gid := range st.Groups {
		sel = appendID(sel, "supplementary_gid", "supplementary_group", gid, a.groups)
	}
	return sel
}

// appendID appends the selector of a number and, where the system knows one,
// that of its name.
func appendID(sel []registration.Selector, number, name string, id uint32, names *names) []registration.Selector {
	sel = append(sel, unixSelector(number, strconv.FormatUint(uint64(id), 10)))
	if n := names.name(id); n != "" {
		sel = append(sel, unixSelector(name, n))
	}
	return sel
}

// executable returns the selectors of p's executable. What may not be read or is
// too long is left out: a missing selector only ever denies.
func (a *Attestor) executable(ctx context.Context, p *Process) ([]registration.Selector, error) {
	path, err := p.Readlink("exe")
	if errors.Is(err, os.ErrPermission) {
		a.warnOnce("no path selectors: the agent may not read the caller's executable; run it as root or as the caller's user", "uid", strconv.Itoa(int(p.uid)))
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	sel := []registration.Selector{unixSelector("path", path)}
	if a.opt.SizeLimit < 0 {
		return sel, nil
	}
	// Opening the link opens the very file that is executed, whatever its path
	// leads to by now, and in whichever mount namespace.
	f, err := p.Open("exe")
	if errors.Is(err, os.ErrPermission) {
		a.warnOnce("no sha256 selector: the agent may not read the caller's executable", "path", path)
		return sel, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sum, err := a.hashes.sum(ctx, p.uid, f, a.opt.SizeLimit)
	switch {
	case errors.Is(err, errTooLong):
		a.warnOnce("no sha256 selector: the executable is longer than workload_size_limit", "path", path)
		return sel, nil
	case errors.Is(err, errUserServed):
		a.warnOnce("no sha256 selector: the executable is on a file system that a process serves (FUSE), which can show another content to each reader", "path", path)
		return sel, nil
	case err != nil:
		return sel, fmt.Errorf("hash of %s: %w", path, err)
	}
	return append(sel, unixSelector("sha256", sum)), nil
}

// maxTold bounds what is remembered to have been warned of.
const maxTold = 1000

// warnOnce warns of one thing once: callers come by the thousand.
func (a *Attestor) warnOnce(msg, key, value string) {
	a.mu.Lock()
	known := a.told[msg+value] || len(a.told) >= maxTold
	if !known {
		a.told[msg+value] = true
	}
	a.mu.Unlock()
	if !known {
		a.log.Warn(msg, key, value)
	}
}

func unixSelector(kind, value string) registration.Selector {
	return registration.Selector{Type: unixType, Value: kind + ":" + value}
}
