package workloadattest

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// defaultMaxPerUser is enough for each process of a busy user.
	defaultMaxPerUser = 4096
	// filesPerCaller is what a connection holds open: its socket and a pidfd.
	filesPerCaller = 2
	// filesKept is what the rest of the agent may need: its own connections, and
	// what is open while callers are attested.
	filesKept = 256
	// logEvery is how often one user's refused connections are logged.
	logEvery = 30 * time.Second
	// maxLogged bounds what is remembered for that.
	maxLogged = 1000
)

// limits bound what the users of a node can make the agent hold open. Root is
// exempt, and has a share of the files that nobody else gets.
type limits struct {
	log   *slog.Logger
	max   int // connections a user
	files func() uint64
	now   func() time.Time

	mu    sync.Mutex
	open  map[uint32]int // connections by user
	total int
	// calls by user, all but root's, and how many there are.
	calls    map[uint32]int
	allCalls int
	warned   bool
	told     map[string]time.Time
}

func newLimits(log *slog.Logger, maxPerUser int) *limits {
	if maxPerUser == 0 {
		maxPerUser = defaultMaxPerUser
	}
	return &limits{
		log: log, max: maxPerUser, files: openFiles, now: time.Now,
		open: make(map[uint32]int), calls: make(map[uint32]int), told: make(map[string]time.Time),
	}
}

// openFiles returns how many files this process may have open. The Go runtime
// has raised the soft limit to the hard one at the start.
func openFiles() uint64 {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 1024 // what every system allows
	}
	return r.Cur
}

// acquire counts a connection of a user in, or says why not.
func (l *limits) acquire(uid uint32) error {
	room := int64(min(l.files(), 1<<30)) - filesKept
	callers := int(max(room, 2*filesPerCaller) / filesPerCaller)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.warn(callers)
	if uid != 0 {
		// A user cannot take more than half of what there is from the others.
		if limit := min(l.max, callers/2); l.open[uid] >= limit {
			return &limitError{uid: uid, text: fmt.Sprintf("user %d has %d connections open already, as many as one user may have", uid, limit)}
		}
		if limit := callers - callers/8; l.total >= limit {
			return &limitError{uid: uid, text: fmt.Sprintf("%d connections are open, as many as the limit of open files allows: raise LimitNOFILE of the agent", l.total)}
		}
	}
	l.open[uid]++
	l.total++
	return nil
}

func (l *limits) release(uid uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.open[uid]--; l.open[uid] == 0 {
		delete(l.open, uid)
	}
}

// warn tells once that the files will not do for long, and again after it was
// better meanwhile.
func (l *limits) warn(callers int) {
	switch near := callers / 4 * 3; {
	case !l.warned && l.total >= near:
		l.warned = true
		l.log.Warn("nearly as many workloads are connected as the agent may have files open: raise its limit (LimitNOFILE)",
			"connections", l.total, "limit_of_open_files", l.files())
	case l.warned && l.total < near/2:
		l.warned = false
	}
}

// limitError says that a user has too many connections.
type limitError struct {
	uid  uint32
	text string
}

func (e *limitError) Error() string { return e.text }

// seldom reports whether nothing was logged under key for a while.
func (l *limits) seldom(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if at, ok := l.told[key]; ok && now.Sub(at) < logEvery {
		return false
	}
	if len(l.told) >= maxLogged {
		for k, at := range l.told {
			if now.Sub(at) >= logEvery {
				delete(l.told, k)
			}
		}
		if len(l.told) >= maxLogged {
			return false
		}
	}
	l.told[key] = now
	return true
}
