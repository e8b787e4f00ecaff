// Package sandbox owns what a sidecar gives up once it knows its configuration: files, directories and ports it has no use for (Landlock,
// https://docs.kernel.org/userspace-api/landlock.html), running programs, new privileges, and core dumps with keys in them. It does not
// read the configuration.
package sandbox

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/landlock-lsm/go-landlock/landlock"
	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// Rules are what stays permitted, besides what every sidecar needs: names, time zones and the system's roots. What is not permitted fails
// from then on with EACCES (EPERM for abstract sockets and signals). Empty strings are skipped.
type Rules struct {
	// ReadFiles are files to be read, now and after they were replaced, so all that is in their directories; also when they, or a
	// directory above, are links, and what these point to is exchanged for another below the same parent, as Kubernetes does.
	ReadFiles []string
	// ReadDirs and WriteDirs are directories to be read, or read and written, with all below. WriteDirs are made (0700) if missing.
	ReadDirs, WriteDirs []string
	// Sockets are Workload API sockets to be dialled (see Dumpable). Landlock restricts that from its version 9 on, which is not used: any
	// UNIX socket can be dialled.
	Sockets []string
	// Bind is what to listen on, HOST:PORT, unix:PATH or systemd:NAME, with or without http:// or https://. Names of ports are looked up.
	// Port 0 leaves binding to TCP ports unrestricted, and nothing else.
	Bind []string
	// Connect is what to dial, HOST:PORT, unix:PATH or a URL. A URL without a port is given its scheme's; http:// both 80 and a proxy's 8080.
	Connect []string
	// AnyConnect leaves connecting to TCP ports unrestricted, for what decides by itself where to connect.
	AnyConnect bool
	// Dumpable leaves memory in core dumps, and the process open to ptrace by its own user, for debugging. Where there are Sockets it stays
	// open to ptrace in any case: the files in /proc of a process that isn't are root's, by which a spire-agent takes it for another than
	// the one that connected.
	Dumpable bool
}

// Versions of Landlock's interface from which on it restricts more.
const (
	abiPorts  = 4 // Linux 6.7
	abiScopes = 7 // Linux 6.15; scopes exist from 6 on, but there forbid signals between a process's own threads, which Go's runtime sends
)

// handledFS is what files are restricted in: all up to version 5. Version 9 has connecting to UNIX sockets, too.
const handledFS = landlock.AccessFSSet(llsys.AccessFSIoctlDev<<1 - 1)

// Apply gives up all but r, for all threads and for ever. It logs one line about what is restricted; what this kernel can't do is no error.
func Apply(r Rules, log *slog.Logger) error {
	if err := dropDumps(r, log); err != nil {
		return err
	}
	abi, err := llsys.LandlockGetABIVersion()
	if err != nil || abi < 1 {
		log.Info("no sandbox for files and ports: this kernel has no Landlock (Linux 5.13 or later, with landlock in lsm=)")
		return noNewPrivs()
	}
	g := compile(r)
	config, what := g.restrictions(abi)
	for _, problem := range g.problems {
		log.Warn("sandbox: " + problem)
	}
	err = config.BestEffort().Restrict(g.landlockRules(config)...)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
		log.Warn("no sandbox for files and ports: a seccomp filter or the like forbids Landlock", "err", err)
		return noNewPrivs()
	}
	if err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	log.Info("sandbox: restricted "+strings.Join(what, ", "), "landlock", abi)
	return nil
}

// restrictions returns what is taken away, less what is granted, and its names.
func (g *grants) restrictions(abi int) (config landlock.Config, what []string) {
	config = landlock.Config{HandledAccessFS: handledFS}
	what = []string{"files", "programs"}
	if abi >= abiPorts {
		if g.bind != nil {
			config.HandledAccessNet |= llsys.AccessNetBindTCP
			what = append(what, "TCP ports to listen on")
		}
		if g.connect != nil {
			config.HandledAccessNet |= llsys.AccessNetConnectTCP
			what = append(what, "TCP ports to connect to")
		}
	}
	if abi >= abiScopes {
		config.Scoped |= llsys.ScopeSignal
		what = append(what, "signals")
		if !g.abstract {
			config.Scoped |= llsys.ScopeAbstractUnixSocket
			what = append(what, "abstract sockets")
		}
	}
	return config, what
}

// noNewPrivs makes set-user-ID programs and file capabilities mean nothing (PR_SET_NO_NEW_PRIVS). Landlock does it, too.
func noNewPrivs() error {
	if err := llsys.AllThreadsPrctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl PR_SET_NO_NEW_PRIVS: %w", err)
	}
	return nil
}

// dropDumps keeps keys out of core dumps, and other processes of this user out of this one.
func dropDumps(r Rules, log *slog.Logger) error {
	if r.Dumpable {
		return nil
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("setrlimit RLIMIT_CORE: %w", err)
	}
	// The limit does not hold for a program that core_pattern pipes dumps to (core(5)).
	if err := os.WriteFile("/proc/self/coredump_filter", []byte("0"), 0); err != nil {
		log.Warn("sandbox: core dumps piped to a program would have memory in them", "err", err)
	}
	if slices.ContainsFunc(r.Sockets, func(s string) bool { return s != "" }) {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl PR_SET_DUMPABLE: %w", err)
	}
	return nil
}
