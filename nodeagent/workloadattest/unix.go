package workloadattest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"strconv"
	"sync"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

// unixType is the type of this attestor's selectors.
const unixType = "unix"

// Options say what attestation looks at. The zero value is usable.
type Options struct {
	// DiscoverPath adds the selectors path and sha256. It needs the right to
	// read /proc/PID/exe: the caller's own user, or CAP_SYS_PTRACE.
	DiscoverPath bool
	// SizeLimit is how long, in bytes, an executable may be to be hashed. 0 is
	// any length; below 0 nothing is hashed.
	SizeLimit int64
	// Plugins are asked besides the unix attestor, all at once.
	Plugins []Plugin
	// Observe is told of each attestor's every attestation; may be nil. It must
	// not block.
	Observe func(Report)
	// Log may be nil.
	Log *slog.Logger
}

// Attestor reads the selectors of callers: unix:uid, user, gid, group,
// supplementary_gid, supplementary_group, path and sha256, as SPIRE's unix
// attestor names them. It is safe for concurrent use.
type Attestor struct {
	opt    Options
	log    *slog.Logger
	hashes *hashCache

	mu   sync.Mutex
	told map[string]bool // what was warned of
}

// New returns an attestor. It does no I/O.
func New(opt Options) *Attestor {
	log := opt.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Attestor{opt: opt, log: log, hashes: newHashCache(), told: make(map[string]bool)}
}

// AttestContext attests the caller of the RPC that ctx belongs to.
func (a *Attestor) AttestContext(ctx context.Context) (Result, error) {
	caller, err := FromContext(ctx)
	if err != nil {
		return Result{}, err
	}
	return a.Attest(ctx, caller)
}

// Attest returns what c is now, sorted. The error wraps [ErrGone] if the process
// has ended. It is another error if its user or group is not the one that it
// connected with: whoever executes a set-user-ID program after connecting must
// not be taken for its owner.
func (a *Attestor) Attest(ctx context.Context, c *Caller) (Result, error) {
	sel, err := a.attest(ctx, c)
	return Result{Selectors: sel}, err
}

func (a *Attestor) attest(ctx context.Context, c *Caller) ([]registration.Selector, error) {
	var sel []registration.Selector
	if a.opt.DiscoverPath {
		exe, err := a.executable(ctx, c)
		if err != nil {
			return nil, err
		}
		sel = exe
	}
	// After the executable: one that a process of another user executes while
	// it is looked at must not be named beside the user who connected.
	data, err := readProc(c.proc.path("status"))
	if err != nil {
		return nil, goneIfMissing(err)
	}
	st, err := parseStatus(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.proc.path("status"), err)
	}
	if st.UID != c.uid || st.GID != c.gid {
		c.socket.Close()
		return nil, fmt.Errorf("pid %d connected as user %d, group %d and is user %d, group %d now", c.proc.pid, c.uid, c.gid, st.UID, st.GID)
	}
	sel = append(sel, ownerSelectors(st)...)
	// Only now is it certain that all that was read by number was the caller's.
	if err := c.proc.check(); err != nil {
		return nil, err
	}
	return registration.SortSelectors(sel), nil
}

func ownerSelectors(st procStatus) []registration.Selector {
	var sel []registration.Selector
	sel = appendID(sel, "uid", "user", st.UID, userName)
	sel = appendID(sel, "gid", "group", st.GID, groupName)
	for _, gid := range st.Groups {
		sel = appendID(sel, "supplementary_gid", "supplementary_group", gid, groupName)
	}
	return sel
}

// appendID appends the selector of a number and, where the system knows one,
// that of its name.
func appendID(sel []registration.Selector, number, name string, id uint32, lookup func(string) string) []registration.Selector {
	s := strconv.FormatUint(uint64(id), 10)
	sel = append(sel, unixSelector(number, s))
	if n := lookup(s); n != "" {
		sel = append(sel, unixSelector(name, n))
	}
	return sel
}

func userName(uid string) string {
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return ""
}

func groupName(gid string) string {
	if g, err := user.LookupGroupId(gid); err == nil {
		return g.Name
	}
	return ""
}

// executable returns the selectors of the caller's executable. What may not be
// read or is too long is left out: a missing selector only ever denies.
func (a *Attestor) executable(ctx context.Context, c *Caller) ([]registration.Selector, error) {
	link := c.proc.path("exe")
	path, err := os.Readlink(link)
	if errors.Is(err, os.ErrPermission) {
		a.warnOnce("no path selectors: the agent may not read the caller's executable; run it as root or as the caller's user", "uid", strconv.Itoa(int(c.uid)))
		return nil, nil
	}
	if err != nil {
		return nil, goneIfMissing(err)
	}
	sel := []registration.Selector{unixSelector("path", path)}
	if a.opt.SizeLimit < 0 {
		return sel, nil
	}
	// Opening the link opens the very file that is executed, whatever its path
	// leads to by now, and in whichever mount namespace.
	f, err := os.Open(link)
	if errors.Is(err, os.ErrPermission) {
		a.warnOnce("no sha256 selector: the agent may not read the caller's executable", "path", path)
		return sel, nil
	}
	if err != nil {
		return nil, goneIfMissing(err)
	}
	defer f.Close()
	sum, err := a.hashes.sum(ctx, f, a.opt.SizeLimit)
	if errors.Is(err, errTooLong) {
		a.warnOnce("no sha256 selector: the executable is longer than workload_size_limit", "path", path)
		return sel, nil
	}
	if err != nil {
		return nil, fmt.Errorf("hash of %s: %w", link, err)
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
