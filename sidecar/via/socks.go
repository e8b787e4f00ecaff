package via

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
)

// SOCKS5's numbers (RFC 1928, sections 3 to 6; RFC 1929).
const (
	socksVersion    = 5
	authVersion     = 1
	methodNone      = 0
	methodPassword  = 2
	methodsRefused  = 0xff
	commandConnect  = 1
	typeIPv4        = 1
	typeName        = 3
	typeIPv6        = 4
	repliedOK       = 0
	repliedNotAllow = 2
	maxField        = 255
)

// replies are what the numbers of section 6 mean.
var replies = map[byte]string{
	1: "general failure", repliedNotAllow: "not allowed by its rules", 3: "network unreachable", 4: "host unreachable", 5: "connection refused",
	6: "TTL expired", 7: "CONNECT is not supported", 8: "that kind of address is not supported",
}

func (p *Proxy) connectSOCKS(c net.Conn, to destination) error {
	request, err := socksRequest(to)
	if err != nil {
		return err
	}
	if err := p.greet(c); err != nil {
		return err
	}
	if _, err := c.Write(request); err != nil {
		return fmt.Errorf("ask for %s: %w", to, err)
	}
	var head [4]byte
	if err := readFull(c, head[:]); err != nil {
		return fmt.Errorf("ask for %s: %w", to, err)
	}
	if head[0] != socksVersion {
		return notSOCKS(head[:])
	}
	if code := head[1]; code != repliedOK {
		meaning, known := replies[code]
		if !known {
			meaning = "an error without a name"
		}
		return fmt.Errorf("answered %d for %s: %s", code, to, meaning)
	}
	return skipBound(c, head[3])
}

// greet agrees on how to authenticate, and does.
func (p *Proxy) greet(c net.Conn) error {
	hello := []byte{socksVersion, 1, methodNone}
	if p.user != "" {
		hello = []byte{socksVersion, 2, methodNone, methodPassword}
	}
	if _, err := c.Write(hello); err != nil {
		return fmt.Errorf("greet: %w", err)
	}
	var choice [2]byte
	if err := readFull(c, choice[:]); err != nil {
		return fmt.Errorf("greet: %w", err)
	}
	if choice[0] != socksVersion {
		return notSOCKS(choice[:])
	}
	switch method := choice[1]; {
	case method == methodNone:
		return nil
	case method == methodPassword && p.user != "":
		return p.authenticate(c)
	case method == methodsRefused && p.user == "":
		return errors.New("it wants a user and a password: give socks5://USER:PASSWORD@HOST:PORT")
	case method == methodsRefused:
		return errors.New("it takes neither a password nor nobody's name (RFC 1928, section 3): let it take one of them")
	default:
		return fmt.Errorf("it chose method %d, which was not offered", method)
	}
}

// authenticate tells user and password (RFC 1929, section 2).
func (p *Proxy) authenticate(c net.Conn) error {
	msg := append([]byte{authVersion, byte(len(p.user))}, p.user...)
	msg = append(append(msg, byte(len(p.pass))), p.pass...)
	if _, err := c.Write(msg); err != nil {
		return fmt.Errorf("authenticate: %w", err)
	}
	var status [2]byte
	if err := readFull(c, status[:]); err != nil {
		return fmt.Errorf("authenticate user %q: %w", p.user, err)
	}
	if status[1] != 0 {
		return fmt.Errorf("it refuses user %q: give another password, or let the proxy take this one", p.user)
	}
	return nil
}

func socksRequest(to destination) ([]byte, error) {
	b := []byte{socksVersion, commandConnect, 0}
	if ip, err := netip.ParseAddr(to.host); err == nil {
		if ip = ip.Unmap(); ip.Is4() {
			b = append(b, typeIPv4)
		} else {
			b = append(b, typeIPv6)
		}
		b = append(b, ip.AsSlice()...)
	} else {
		if len(to.host) > maxField {
			return nil, fmt.Errorf("target %s: SOCKS5 takes names of up to %d bytes", to, maxField)
		}
		b = append(append(b, typeName, byte(len(to.host))), to.host...)
	}
	return binary.BigEndian.AppendUint16(b, to.port), nil
}

// skipBound reads the rest of an answer, the address that the proxy connected from, and not a byte more.
func skipBound(c net.Conn, kind byte) error {
	var size int
	switch kind {
	case typeIPv4:
		size = 4
	case typeIPv6:
		size = 16
	case typeName:
		var n [1]byte
		if err := readFull(c, n[:]); err != nil {
			return err
		}
		size = int(n[0])
	default:
		return fmt.Errorf("its answer has an address of type %d, which SOCKS5 does not know", kind)
	}
	return readFull(c, make([]byte, size+2))
}

func notSOCKS(b []byte) error {
	return fmt.Errorf("it does not speak SOCKS5, but says %s: is it an HTTP proxy?", strconv.Quote(string(b)))
}

func readFull(c net.Conn, b []byte) error {
	_, err := io.ReadFull(c, b)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errors.New("it hung up without an answer")
	}
	return err
}
