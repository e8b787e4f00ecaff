package proxyproto

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// prefixV1 begins a header of version 1 (section 2.1), which is a line of at most maxV1 bytes, "\r\n" included.
const (
	prefixV1 = "PROXY "
	maxV1    = 107
)

// readV1 reads what follows start.
func readV1(c net.Conn, start []byte) (Info, error) {
	line := start
	for !bytes.HasSuffix(line, []byte("\r\n")) {
		// Two bytes are missing, or one after a "\r": more could belong to what follows.
		missing := 2
		if line[len(line)-1] == '\r' {
			missing = 1
		}
		if len(line)+missing > maxV1 || bytes.IndexByte(line, '\n') >= 0 {
			return Info{}, fmt.Errorf("PROXY header %q: want a line of at most %d bytes that ends with \\r\\n", line, maxV1)
		}
		line = append(line, make([]byte, missing)...)
		if _, err := io.ReadFull(c, line[len(line)-missing:]); err != nil {
			return Info{}, fmt.Errorf("read PROXY header: %w", noEOF(err))
		}
	}
	return parseV1(string(line))
}

func parseV1(line string) (Info, error) {
	wrong := func(problem string) (Info, error) { return Info{}, fmt.Errorf("PROXY header %q: %s", line, problem) }
	text := strings.TrimSuffix(line, "\r\n")
	if strings.ContainsAny(text, "\r\n") {
		return wrong("it has a line's end in it")
	}
	f := strings.Split(text, " ")
	if f[1] == "UNKNOWN" {
		return Info{}, nil // what follows is to be ignored
	}
	if f[1] != "TCP4" && f[1] != "TCP6" {
		return wrong("want TCP4, TCP6 or UNKNOWN")
	}
	if len(f) != 6 {
		return wrong("want two addresses and two ports")
	}
	source, okSource := parseAddrPort(f[1], f[2], f[4])
	destination, okDestination := parseAddrPort(f[1], f[3], f[5])
	if !okSource || !okDestination {
		return wrong("want two addresses of that family and two ports")
	}
	return Info{Source: source, Destination: destination}, nil
}

func parseAddrPort(family, host, port string) (net.Addr, bool) {
	ip, err := netip.ParseAddr(host)
	if err != nil || ip.Zone() != "" || ip.Is4() != (family == "TCP4") {
		return nil, false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || strconv.FormatUint(n, 10) != port {
		return nil, false
	}
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, uint16(n))), true
}
