// Package notify owns what systemd is told about the process: ready, reloading,
// stopping, a status line, and that it is alive. It speaks the protocol of
// sd_notify(3) itself, a datagram a message. It decides nothing.
package notify

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Config is what systemd says in the environment. The zero Config tells nobody
// anything.
type Config struct {
	// Socket is $NOTIFY_SOCKET: a path, or "@" and the name of an abstract socket.
	Socket string
	// Watchdog is the time after which systemd takes a silent process for dead; 0 if
	// it does not watch. See $WATCHDOG_USEC in sd_watchdog_enabled(3).
	Watchdog time.Duration
}

// FromEnv reads the Config of this process from its environment. Variables that
// are meant for another process, or malformed, count as absent: the error says
// which; the Config can be used nevertheless.
func FromEnv(getenv func(string) string) (Config, error) {
	cfg := Config{Socket: getenv("NOTIFY_SOCKET")}
	if cfg.Socket != "" && cfg.Socket[0] != '/' && cfg.Socket[0] != '@' {
		return Config{}, fmt.Errorf("NOTIFY_SOCKET %q is neither a path nor @NAME: systemd is not notified", cfg.Socket)
	}
	pid, usec := getenv("WATCHDOG_PID"), getenv("WATCHDOG_USEC")
	if usec == "" || (pid != "" && pid != strconv.Itoa(os.Getpid())) {
		return cfg, nil
	}
	n, err := strconv.ParseInt(usec, 10, 64)
	if err != nil || n <= 0 || n > int64(maxWatchdog/time.Microsecond) {
		return cfg, fmt.Errorf("WATCHDOG_USEC %q is no number of microseconds from 1 to %d: the watchdog is not fed", usec, maxWatchdog/time.Microsecond)
	}
	cfg.Watchdog = time.Duration(n) * time.Microsecond
	return cfg, nil
}

// maxWatchdog is longer than anybody waits for a dead process.
const maxWatchdog = 365 * 24 * time.Hour

// Notifier tells systemd. A nil Notifier, and one without a socket, tells nobody.
type Notifier struct{ cfg Config }

// New returns a Notifier for cfg. It does no I/O.
func New(cfg Config) *Notifier { return &Notifier{cfg} }

// Ready says that start-up, or a reload, is done.
func (n *Notifier) Ready(status string) error { return n.send("READY=1", "STATUS="+line(status)) }

// Reloading says that the configuration is being read again; Ready ends that.
func (n *Notifier) Reloading(status string) error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("sd_notify: monotonic clock: %w", err)
	}
	// systemd 253 wants to know when, to tell this reload from an earlier one.
	return n.send("RELOADING=1", "MONOTONIC_USEC="+strconv.FormatInt(now.Nano()/1000, 10), "STATUS="+line(status))
}

// Stopping says that the process is about to end.
func (n *Notifier) Stopping(status string) error { return n.send("STOPPING=1", "STATUS="+line(status)) }

// Status says in a line how the process is.
func (n *Notifier) Status(status string) error { return n.send("STATUS=" + line(status)) }

// Watchdog tells systemd that the process is alive, twice in each Config.Watchdog,
// until ctx ends: but only while alive says so. It returns at once if systemd does
// not watch, and says through failed, once in a row, when it cannot be told.
func (n *Notifier) Watchdog(ctx context.Context, alive func() bool, failed func(error)) {
	if n == nil || n.cfg.Socket == "" || n.cfg.Watchdog <= 0 {
		return
	}
	tick := time.NewTicker(max(n.cfg.Watchdog/2, time.Millisecond))
	defer tick.Stop()
	told := false
	for {
		if alive() {
			err := n.send("WATCHDOG=1")
			if err != nil && !told {
				failed(err)
			}
			told = err != nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// send sends one message. A connection for each: there are few, and systemd may
// be restarted in between.
func (n *Notifier) send(lines ...string) error {
	if n == nil || n.cfg.Socket == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.cfg.Socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("sd_notify: %w", err)
	}
	// systemd's queue may be full; nothing here may hang because of that.
	err = conn.SetWriteDeadline(time.Now().Add(time.Second))
	if err == nil {
		_, err = conn.Write([]byte(strings.Join(lines, "\n")))
	}
	if err := errors.Join(err, conn.Close()); err != nil {
		return fmt.Errorf("sd_notify: %w", err)
	}
	return nil
}

// line keeps a status from being taken for more than one assignment.
func line(s string) string { return strings.NewReplacer("\n", " ", "\r", " ").Replace(s) }
