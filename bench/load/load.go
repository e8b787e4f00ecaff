// Package load makes the traffic that proxies are measured with, and the program behind them that takes it: each in a
// process of its own, on one thread and an epoll instance, so that they take little of the machine and nothing of what
// is counted. It knows nothing of the proxies between the two, and measures no CPU time.
//
// The two speak a protocol of nine bytes ahead of data: what to do, and with how many bytes (big-endian).
//
//	e  send so many bytes back, these nine the first of them
//	u  swallow so many bytes that follow, then send one
//	d  send so many bytes
package load

import (
	"encoding/binary"
	"runtime"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
)

const (
	opEcho     = 'e'
	opUpload   = 'u'
	opDownload = 'd'

	acknowledged = 'k'
	headerSize   = 9

	// blockSize is what is written and read at once in bulk: large, so that the ends cost little beside the proxies.
	blockSize = 256 << 10

	// patience is how long nothing may happen before a run is given up.
	patience = 20 * time.Second
)

func header(op byte, count int64) []byte {
	return binary.BigEndian.AppendUint64([]byte{op}, uint64(count))
}

// Echo is what to send to have just that back: a header and filler, size bytes together, more than nine.
func Echo(size int) []byte {
	return append(header(opEcho, int64(size)), make([]byte, size-headerSize)...)
}

// alone makes this process one thread that collects no garbage while it runs: there is next to none.
func alone() {
	runtime.LockOSThread()
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(400)
}

// poller is an epoll instance, level-triggered.
type poller struct {
	fd     int
	events []unix.EpollEvent
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	return &poller{fd: fd, events: make([]unix.EpollEvent, 256)}, err
}

func (p *poller) add(fd int, events uint32) error {
	return unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Fd: int32(fd), Events: events})
}

func (p *poller) change(fd int, events uint32) error {
	return unix.EpollCtl(p.fd, unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Fd: int32(fd), Events: events})
}

// wait returns what is ready; nothing when the timeout passes. A negative timeout is none.
func (p *poller) wait(timeout time.Duration) ([]unix.EpollEvent, error) {
	ms := -1
	if timeout >= 0 {
		ms = int(timeout / time.Millisecond)
	}
	for {
		n, err := unix.EpollWait(p.fd, p.events, ms)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		return p.events[:n], nil
	}
}

// wouldBlock tells a call that can't go on now from one that failed.
func wouldBlock(err error) bool { return err == unix.EAGAIN || err == unix.EINTR }
