package poll

import (
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// The kernel's defaults in package net, for what a KeepAliveConfig leaves zero.
const (
	keepIdle     = 15 * time.Second
	keepInterval = 15 * time.Second
	keepCount    = 9
)

// setTCP sets the options of a TCP socket. TCP_NODELAY is always set: what is
// passed on waits for nothing.
func setTCP(fd int, keep net.KeepAliveConfig, user time.Duration) error {
	type option struct{ level, name, value int }
	options := []option{{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1}}
	if keep.Enable {
		options = append(options, option{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1})
		if s := seconds(keep.Idle, keepIdle); s > 0 {
			options = append(options, option{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, s})
		}
		if s := seconds(keep.Interval, keepInterval); s > 0 {
			options = append(options, option{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, s})
		}
		if n := count(keep.Count); n > 0 {
			options = append(options, option{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, n})
		}
	}
	if user > 0 {
		options = append(options, option{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(max(user/time.Millisecond, 1))})
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return nil
}

// seconds is d for the kernel, rounded up: a default if d is zero, 0 to leave it
// alone if d is negative, as in net.KeepAliveConfig.
func seconds(d, otherwise time.Duration) int {
	if d == 0 {
		d = otherwise
	}
	return int((d + time.Second - 1) / time.Second)
}

func count(n int) int {
	if n == 0 {
		return keepCount
	}
	return n
}
