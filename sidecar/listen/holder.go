package listen

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// holder says which process listens on addr, as " by pid 7 (nginx)"; nothing if that can't be seen, as with another user's.
func holder(addr *net.TCPAddr) string {
	if addr == nil {
		return ""
	}
	for _, table := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		if inode := listening(table, addr.AddrPort()); inode != "" {
			if who := holderOf("socket:[" + inode + "]"); who != "" {
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
	lines := bufio.NewScanner(f)
	for lines.Scan() {
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

// parseListening reads a line of /proc/net/tcp or tcp6 (proc_pid_net(5)); false if it is no listening socket's.
func parseListening(line string) (local netip.AddrPort, inode string, ok bool) {
	const listen = "0A" // TCP_LISTEN
	f := strings.Fields(line)
	if len(f) < 10 || f[3] != listen {
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

// holderOf finds a process that has link open.
func holderOf(link string) string {
	pids, _ := filepath.Glob("/proc/[0-9]*")
	for _, pid := range pids {
		fds, err := os.Open(pid + "/fd")
		if err != nil {
			continue // another user's, or gone
		}
		names, _ := fds.Readdirnames(maxLooked)
		fds.Close()
		for _, fd := range names {
			if to, err := os.Readlink(pid + "/fd/" + fd); err == nil && to == link {
				comm, _ := os.ReadFile(pid + "/comm")
				return fmt.Sprintf(" by pid %s (%s)", filepath.Base(pid), strings.Map(printable, strings.TrimSpace(string(comm))))
			}
		}
	}
	return ""
}

func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return '?'
	}
	return r
}
