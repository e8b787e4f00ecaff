package proxyproto

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net"
)

// Header returns the header of version 2 that tells mode's share of info; nothing in mode None. Addresses of two families are both
// told as IPv6 ones. It fails if what is to be told doesn't fit into 64 KiB, as with an outsized certificate.
func Header(mode Mode, info Info) ([]byte, error) {
	if mode == None {
		return nil, nil
	}
	family, addresses, err := encodeAddresses(info.Source, info.Destination)
	if err != nil {
		return nil, err
	}
	body := addresses
	if mode != Conn {
		if body, err = appendTLS(body, mode, info); err != nil {
			return nil, err
		}
	}
	if len(body) > maxLength {
		return nil, fmt.Errorf("PROXY header: %d bytes do not fit, the client's certificate is too large: use mode %s", len(body), TLS)
	}
	command := byte(versionProxy)
	if family == unspec && len(body) == 0 {
		command = versionLocal // a receiver would have to discard TLVs, too
	}
	h := append(make([]byte, 0, lenPrefix+len(body)), signature...)
	h = append(h, command, family)
	h = binary.BigEndian.AppendUint16(h, uint16(len(body)))
	return append(h, body...), nil
}

// encodeAddresses returns the family and the addresses as it has them. Addresses that make no pair are unspec.
func encodeAddresses(source, destination net.Addr) (family byte, b []byte, err error) {
	switch s := source.(type) {
	case *net.TCPAddr:
		d, ok := destination.(*net.TCPAddr)
		if !ok || s == nil || d == nil {
			return unspec, nil, nil
		}
		if s4, d4 := s.IP.To4(), d.IP.To4(); s4 != nil && d4 != nil {
			family, b = tcp4, append(append(b, s4...), d4...)
		} else if s16, d16 := s.IP.To16(), d.IP.To16(); s16 != nil && d16 != nil {
			family, b = tcp6, append(append(b, s16...), d16...)
		} else {
			return unspec, nil, nil
		}
		b = binary.BigEndian.AppendUint16(b, uint16(s.Port))
		return family, binary.BigEndian.AppendUint16(b, uint16(d.Port)), nil
	case *net.UnixAddr:
		d, ok := destination.(*net.UnixAddr)
		if !ok || s == nil || d == nil {
			return unspec, nil, nil
		}
		b = make([]byte, lenUNIX)
		for i, name := range []string{s.Name, d.Name} {
			if len(name) > lenPath {
				return 0, nil, fmt.Errorf("PROXY header: socket path %s is longer than %d bytes", name, lenPath)
			}
			copy(b[i*lenPath:], name)
			if name != "" && name[0] == '@' {
				b[i*lenPath] = 0 // as the kernel has abstract names
			}
		}
		return unixStream, b, nil
	}
	return unspec, nil, nil
}

// appendTLS appends the TLVs about the client's TLS connection.
func appendTLS(b []byte, mode Mode, info Info) ([]byte, error) {
	var list tlvs
	if state := info.TLS; state != nil {
		list.add(TypeALPN, []byte(state.NegotiatedProtocol))
		list.add(TypeAuthority, []byte(state.ServerName))
		ssl, err := encodeSSL(mode, state)
		if err != nil {
			return nil, err
		}
		list.add(TypeSSL, ssl)
	}
	list.add(TypeSPIFFEID, []byte(info.SPIFFEID))
	return append(b, list.b...), list.err
}

// encodeSSL returns the value of TypeSSL. "Verify" is 0, verified: unverified clients don't come as far as a backend.
func encodeSSL(mode Mode, state *tls.ConnectionState) ([]byte, error) {
	var list tlvs
	list.add(SubtypeVersion, []byte(tls.VersionName(state.Version)))
	flags := byte(clientSSL)
	if mode == TLSFull && len(state.PeerCertificates) > 0 {
		leaf := state.PeerCertificates[0]
		// A certificate that a resumed session remembers was verified on this connection, too.
		flags |= clientCertConn | clientCertSess
		list.add(SubtypeCN, []byte(leaf.Subject.CommonName))
		list.add(SubtypeCertificate, leaf.Raw)
	}
	return append([]byte{flags, 0, 0, 0, 0}, list.b...), list.err
}

// tlvs gathers TLVs; empty ones are left out.
type tlvs struct {
	b   []byte
	err error
}

func (l *tlvs) add(kind byte, value []byte) {
	switch {
	case len(value) == 0:
	case len(value) > maxLength:
		l.err = fmt.Errorf("PROXY header: %d bytes do not fit, the client's certificate is too large: use mode %s", len(value), TLS)
	default:
		l.b = append(l.b, kind)
		l.b = binary.BigEndian.AppendUint16(l.b, uint16(len(value)))
		l.b = append(l.b, value...)
	}
}
