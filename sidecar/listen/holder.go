package listen

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// maxSearch is how long who holds a port is looked for: where thousands of processes run, nobody should wait for that.
const maxSearch = 200 * time.Millisecond

// holder says which process listens on addr, as " by pid 7 (nginx)"; nothing if that can't be seen, as with another user's, or not in time.
func holder(addr *net.TCPAddr) string {
	if addr == nil {
		return ""
	}
	until := time.Now().Add(maxSearch)
	for _, table := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		if inode := listening(table, addr.AddrPort()); inode != "" {
			if who := holderOf("socket:["+inode+"]", until); who != "" {
				return who
			}
		}
	}
	return ""
}

// listening returns the inode of the socket in table that keeps want from being bound, empty if there is none.
func listening(table string, want netip.AddrPort) string {
	f, err := os.Open(table)
	if err != nil {
		return ""
	}
	defer f.Close()
	header := true
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if !header && !bytes.Contains(lines.Bytes(), []byte(" "+stateListen+" ")) {
			break // the kernel tells those that listen first, and there may be a hundred thousand others
		}
		header = false
		has, inode, ok := parseListening(lines.Text())
		if ok && has.Port() == want.Port() && overlap(has.Addr(), want.Addr().Unmap()) {
			return inode
		}
	}
	return ""
}

func overlap(a, b netip.Addr) bool {
	return a == b || a.IsUnspecified() || !b.IsValid() || b.IsUnspecified()
}

// stateListen is TCP_LISTEN in that file.
const stateListen = "0A"

// parseListening reads a line of /proc/net/tcp or tcp6 (proc_pid_net(5)); false if it is no listening socket's.
func parseListening(line string) (local netip.AddrPort, inode string, ok bool) {
	f := strings.Fields(line)
	if len(f) < 10 || f[3] != stateListen {
		return local, "", false
	}
	host, port, _ := strings.Cut(f[1], ":")
	raw, err := hex.DecodeString(host)
	if err != nil || len(raw) != 4 && len(raw) != 16 {
		return local, "", false
	}
	for i := 0; i < len(raw); i += 4 { // words of the machine's order
		binary.BigEndian.PutUint32(raw[i:], binary.NativeEndian.Uint32(raw[i:]))
	}
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return local, "", false
	}
	ip, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(ip.Unmap(), uint16(n)), f[9], true
}

// maxLooked is how many of a process's files are looked at: what a program listens on it opened early, and a proxy may hold ten
// thousand connections.
const maxLooked = 256

// holderOf finds a process that has link open, in the time until until. It begins with this one.
func holderOf(link string, until time.Time) string {
	procs, _ := filepath.Glob("/proc/[0-9]*")
	procs = append([]string{"/proc/" + strconv.Itoa(os.Getpid())}, procs...)
	for _, proc := range procs {
		if time.Now().After(until) {
			return ""
		}
		if holds(proc, link, until) {
			comm, _ := os.ReadFile(proc + "/comm")
			return fmt.Sprintf(" by pid %s (%s)", filepath.Base(proc), strings.Map(printable, strings.TrimSpace(string(comm))))
		}
	}
	return ""
}

// holds says whether the process at proc has link open; it gives up at until.
func holds(proc, link string, until time.Time) bool {
	fds, err := os.Open(proc + "/fd")
	if err != nil {
		return false // another user's, or gone
	}
	defer fds.Close()
	names, _ := fds.Readdirnames(maxLooked)
	for _, fd := range names {
		if to, err := os.Readlink(proc + "/fd/" + fd); err == nil && to == link {
			return true
		}
		if time.Now().After(until) {
			return false
		}
	}
	return false
}

func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return '?'
	}
	return r
}
