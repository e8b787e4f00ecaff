package workloadattest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest/container"
)

// pluginTimeout is how long a plugin may take, so that a daemon which does not
// answer holds no caller up for ever.
const pluginTimeout = 8 * time.Second

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
// attestor names them, lanyard:socket, and what its plugins know. It is safe for
// concurrent use.
type Attestor struct {
	opt           Options
	log           *slog.Logger
	hashes        *hashCache
	users, groups *names

	mu   sync.Mutex
	told map[string]bool // what was warned of
}

// New returns an attestor. It does no I/O.
func New(opt Options) *Attestor {
	log := opt.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Attestor{
		opt: opt, log: log, hashes: newHashCache(), told: make(map[string]bool),
		users: newNames(userName), groups: newNames(groupName),
	}
}

// AttestContext attests the caller of the RPC that ctx belongs to.
func (a *Attestor) AttestContext(ctx context.Context) (Result, error) {
	caller, err := FromContext(ctx)
	if err != nil {
		return Result{}, err
	}
	return a.Attest(ctx, caller)
}

// Attest returns what c is now. The error wraps [ErrGone] if the process has
// ended. It is another error if its user or group is not the one that it
// connected with: whoever executes a set-user-ID program after connecting must
// not be taken for its owner. That ends the connection. An attestor that fails
// is no error of this: see [Result.Incomplete].
func (a *Attestor) Attest(ctx context.Context, c *Caller) (Result, error) {
	p, err := c.pin.process(c.uid, c.gid)
	if err != nil {
		return Result{}, err
	}
	defer p.Close()
	res, err := a.attest(ctx, p)
	if errors.Is(err, errChanged) {
		c.socket.Close()
	}
	if err != nil {
		return Result{}, err
	}
	if c.name != "" {
		res.Selectors = append(res.Selectors, SocketSelector(c.name))
	}
	res.Selectors = registration.SortSelectors(res.Selectors)
	return res, nil
}

// SocketSelector is what callers of a per-workload socket have: lanyard:socket:NAME.
func SocketSelector(name string) registration.Selector {
	return registration.Selector{Type: "lanyard", Value: "socket:" + name}
}

// AttestPID attests the process that has the number pid in the agent's PID
// namespace now, as if it called on the shared socket. The error wraps [ErrGone]
// where there is none.
func (a *Attestor) AttestPID(ctx context.Context, pid int) (Result, ProcessInfo, error) {
	p, err := Open(pid)
	if err != nil {
		return Result{}, ProcessInfo{}, err
	}
	defer p.Close()
	info := describe(p)
	res, err := a.attest(ctx, p)
	if err != nil {
		return Result{}, ProcessInfo{}, err
	}
	res.Selectors = registration.SortSelectors(res.Selectors)
	return res, info, nil
}

// describe leaves out what may not be read.
func describe(p *Process) ProcessInfo {
	info := ProcessInfo{PID: p.PID(), UID: p.uid, GID: p.gid}
	if exe, err := p.Readlink("exe"); err == nil {
		info.Executable = exe
	}
	if st, err := readStat(p.dir); err == nil {
		info.Started = started(st.start)
	}
	if data, err := p.ReadFile("cgroup", maxProcFile); err == nil {
		if c, ok, err := container.Find(data); err == nil && ok {
			info.ContainerID = c.ID
		}
	}
	return info
}

// started turns ticks since boot (USER_HZ, 100 a second on Linux) into a time.
func started(ticks uint64) time.Time {
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return time.Time{}
	}
	return time.Now().Add(time.Duration(ticks)*(time.Second/100) - time.Duration(up.Nano())).Round(0)
}

// errChanged says that a process is not the user's any more that it was.
var errChanged = errors.New("its user or group changed")

// attest asks all attestors about p. What it returns is of one process, and of
// one user: that is looked at after all else.
func (a *Attestor) attest(ctx context.Context, p *Process) (Result, error) {
	found := make([][]registration.Selector, 1+len(a.opt.Plugins))
	reports := make([]Report, len(found))
	var asked sync.WaitGroup
	for i, plugin := range a.opt.Plugins {
		asked.Go(func() { found[i+1], reports[i+1] = ask(ctx, plugin, p) })
	}
	begin := time.Now()
	var unixErr error
	if a.opt.DiscoverPath {
		found[0], unixErr = a.executable(ctx, p)
	}
	took := time.Since(begin)
	asked.Wait()
	// After the executable: one that a process of another user executes while
	// it is looked at must not be named beside the user who connected.
	begin = time.Now()
	st, err := p.status()
	if err != nil {
		return Result{}, err
	}
	if st.UID != p.uid || st.GID != p.gid {
		return Result{}, fmt.Errorf("pid %d connected as user %d, group %d and is user %d, group %d now: %w", p.PID(), p.uid, p.gid, st.UID, st.GID, errChanged)
	}
	found[0] = append(found[0], a.ownerSelectors(st)...)
	reports[0] = Report{Plugin: unixType, Took: took + time.Since(begin), Selectors: len(found[0]), Err: unixErr}
	if err := p.Check(); err != nil {
		return Result{}, err
	}
	if err := ctx.Err(); err != nil {
		return Result{}, err // not the attestors' doing
	}
	var sel []registration.Selector
	for i, rep := range reports {
		if a.opt.Observe != nil {
			a.opt.Observe(rep)
		}
		sel = append(sel, found[i]...)
	}
	return Result{Selectors: sel, Reports: reports}, nil
}

// ask has one plugin attest p.
func ask(ctx context.Context, plugin Plugin, p *Process) ([]registration.Selector, Report) {
	ctx, cancel := context.WithTimeout(ctx, pluginTimeout)
	defer cancel()
	begin := time.Now()
	sel, err := plugin.Attest(ctx, p)
	for _, s := range sel {
		if s.Type != plugin.Name() {
			sel, err = nil, fmt.Errorf("it gave the selector %s, which is not of its type", s)
			break
		}
	}
	return sel, Report{Plugin: plugin.Name(), Took: time.Since(begin), Selectors: len(sel), Err: err}
}
