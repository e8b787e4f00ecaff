package proxyproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/netip"
)

// Read reads a header of version 1 or 2 from c, at most 64 KiB, and not a byte behind it. It sets no deadline: c should have one. After an
// error c is of no use, as part of the header may be gone. An error of c is wrapped; io.EOF means that c ended before it began.
func Read(c net.Conn) (Info, error) {
	// The shortest header of either version is longer than the signature that tells them apart.
	start := make([]byte, len(signature), 128)
	if n, err := io.ReadFull(c, start); err != nil {
		if n > 0 && !couldBegin(start[:n]) {
			return Info{}, notAHeader(start[:n])
		}
		return Info{}, fmt.Errorf("read PROXY header: %w", err)
	}
	switch {
	case string(start) == signature:
		return readV2(c, start)
	case bytes.HasPrefix(start, []byte(prefixV1)):
		return readV1(c, start)
	}
	return Info{}, notAHeader(start)
}

func couldBegin(b []byte) bool {
	return bytes.HasPrefix([]byte(signature), b) || bytes.HasPrefix([]byte(prefixV1), b[:min(len(b), len(prefixV1))])
}

func notAHeader(b []byte) error {
	const recordHandshake = 0x16 // RFC 8446, section 5.1
	if b[0] == recordHandshake {
		return errors.New("no PROXY header, but a TLS handshake: let the balancer send PROXY headers, or don't accept them from its address")
	}
	return fmt.Errorf("no PROXY header, but %q: let the balancer send PROXY headers, or don't accept them from its address", b)
}

// readV2 reads what follows the signature.
func readV2(c net.Conn, header []byte) (Info, error) {
	header = header[:lenPrefix]
	if _, err := io.ReadFull(c, header[len(signature):]); err != nil {
		return Info{}, fmt.Errorf("read PROXY header: %w", noEOF(err))
	}
	command, family, length := header[12], header[13], binary.BigEndian.Uint16(header[14:])
	if command != versionLocal && command != versionProxy {
		return Info{}, fmt.Errorf("PROXY header: version and command 0x%02x: want version 2 and LOCAL or PROXY", command)
	}
	header = append(header, make([]byte, length)...)
	if _, err := io.ReadFull(c, header[lenPrefix:]); err != nil {
		return Info{}, fmt.Errorf("read PROXY header: %w", noEOF(err))
	}
	if command == versionLocal {
		return Info{}, nil // what follows is to be discarded
	}
	info, rest, err := decodeAddresses(family, header[lenPrefix:])
	if err != nil {
		return Info{}, err
	}
	if info.TLVs, err = decodeTLVs(rest); err != nil {
		return Info{}, err
	}
	return info, checkCRC(header, len(header)-len(rest))
}

// noEOF is for reads of which something has come already.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func decodeAddresses(family byte, b []byte) (info Info, rest []byte, err error) {
	need, known := map[byte]int{unspec: 0, tcp4: lenTCP4, tcp6: lenTCP6, unixStream: lenUNIX}[family]
	switch {
	case !known:
		return info, nil, fmt.Errorf("PROXY header: family and transport 0x%02x: want TCP over IPv4 or IPv6, a UNIX stream, or none", family)
	case len(b) < need:
		return info, nil, fmt.Errorf("PROXY header: %d bytes of addresses: want %d", len(b), need)
	}
	switch b, rest = b[:need], b[need:]; family {
	case tcp4, tcp6:
		size := (need - 4) / 2
		info.Source = tcpAddr(b[:size], b[2*size:])
		info.Destination = tcpAddr(b[size:2*size], b[2*size+2:])
	case unixStream:
		info.Source, info.Destination = unixAddr(b[:lenPath]), unixAddr(b[lenPath:])
	}
	return info, rest, nil
}

func tcpAddr(ip, port []byte) net.Addr {
	addr, _ := netip.AddrFromSlice(ip)
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr, binary.BigEndian.Uint16(port)))
}

func unixAddr(b []byte) net.Addr {
	abstract := len(b) > 1 && b[0] == 0 && b[1] != 0
	if abstract {
		b = b[1:]
	}
	if end := bytes.IndexByte(b, 0); end >= 0 {
		b = b[:end]
	}
	name := string(b)
	if abstract {
		name = "@" + name
	}
	return &net.UnixAddr{Net: "unix", Name: name}
}

func decodeTLVs(b []byte) ([]TLV, error) {
	var list []TLV
	for len(b) > 0 {
		if len(b) < 3 {
			return nil, fmt.Errorf("PROXY header: %d bytes are left where a TLV should be", len(b))
		}
		size := int(binary.BigEndian.Uint16(b[1:]))
		if len(b) < 3+size {
			return nil, fmt.Errorf("PROXY header: TLV 0x%02x of %d bytes is longer than the header", b[0], size)
		}
		list = append(list, TLV{Type: b[0], Value: b[3 : 3+size : 3+size]})
		b = b[3+size:]
	}
	return list, nil
}

// checkCRC checks the header's checksum if it has one (section 2.2.3). The TLVs, which are well formed, begin at from.
func checkCRC(header []byte, from int) error {
	at := 0
	for i := from; i < len(header); i += 3 + int(binary.BigEndian.Uint16(header[i+1:])) {
		if header[i] != TypeCRC32C {
			continue
		}
		if at != 0 || binary.BigEndian.Uint16(header[i+1:]) != crc32.Size {
			return errors.New("PROXY header: more than one checksum, or not of 4 bytes")
		}
		at = i + 3
	}
	if at == 0 {
		return nil
	}
	// The sum is over the whole header, with zeros where itself is.
	table := crc32.MakeTable(crc32.Castagnoli)
	crc := crc32.Update(0, table, header[:at])
	crc = crc32.Update(crc, table, make([]byte, crc32.Size))
	crc = crc32.Update(crc, table, header[at+crc32.Size:])
	if got := binary.BigEndian.Uint32(header[at:]); crc != got {
		return fmt.Errorf("PROXY header: its checksum is 0x%08x, but it says 0x%08x: it was changed on its way", crc, got)
	}
	return nil
}
