// Package proxyproto owns the PROXY protocol: the header that tells a backend who is connected, and reading the one that a balancer
// sends. It writes version 2 and reads 1 and 2, as https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt has them; it opens no
// connection, sets no deadline, and decides nobody's access.
package proxyproto

import (
	"crypto/tls"
	"net"

	"github.com/lanyard-mtls/lanyard/sidecar/setting"
)

// Mode is what a header tells.
type Mode string

// The modes, as ghostunnel names them.
const (
	// None sends no header.
	None Mode = ""
	// Conn tells the addresses.
	Conn Mode = "conn"
	// TLS tells also the ALPN protocol, the SNI, the TLS version and the client's SPIFFE ID.
	TLS Mode = "tls"
	// TLSFull tells also the common name of the client's certificate, and the certificate itself.
	TLSFull Mode = "tls-full"
)

// ParseMode reads conn, tls or tls-full. Its error is a *setting.Error about key.
func ParseMode(key, s string) (Mode, error) {
	switch m := Mode(s); m {
	case Conn, TLS, TLSFull:
		return m, nil
	}
	return None, setting.Errorf(key, s, "not a mode: use %s, %s or %s", Conn, TLS, TLSFull)
}

// Info is what a header tells.
type Info struct {
	// Source and Destination are the client's end of its connection and the end it connected to: *net.TCPAddr or *net.UnixAddr.
	// Both are nil if the sender doesn't know, or speaks for itself, as for a health check (LOCAL): then the ends of the connection
	// that the header came on count.
	Source, Destination net.Addr
	// TLS is the client's TLS connection; nil if there is none. Read doesn't set it.
	TLS *tls.ConnectionState
	// SPIFFEID is the client's SPIFFE ID, empty if it has none. Read doesn't set it: nothing has proved it to the reader.
	SPIFFEID string
	// TLVs are what Read found besides, in order. Header ignores them.
	TLVs []TLV
}

// TLV is a type and its value (section 2.2).
type TLV struct {
	Type  byte
	Value []byte
}

// Types of TLVs (sections 2.2.1 to 2.2.8).
const (
	TypeALPN      byte = 0x01
	TypeAuthority byte = 0x02 // the SNI
	TypeCRC32C    byte = 0x03
	TypeSSL       byte = 0x20
	// TypeSPIFFEID is the client's SPIFFE ID as a URI, from the range that is left to applications (0xE0 to 0xEF): a backend needs no
	// parser of certificates to see it. Clouds use 0xE0, 0xEA and 0xEE of that range.
	TypeSPIFFEID byte = 0xE5
)

// Types of TLVs within TypeSSL's, behind its five bytes.
const (
	SubtypeVersion     byte = 0x21
	SubtypeCN          byte = 0x22
	SubtypeCertificate byte = 0x28 // DER
)

// Flags of TypeSSL's first byte.
const (
	clientSSL      = 0x01
	clientCertConn = 0x02
	clientCertSess = 0x04
)

// signature begins a header of version 2.
const signature = "\r\n\r\n\x00\r\nQUIT\n"

// Version and command, the byte behind the signature.
const (
	versionLocal = 0x20
	versionProxy = 0x21
)

// Families and transports, the byte behind that.
const (
	unspec     = 0x00
	tcp4       = 0x11
	tcp6       = 0x21
	unixStream = 0x31
)

// Lengths of the addresses of the families.
const (
	lenTCP4   = 2*4 + 2*2
	lenTCP6   = 2*16 + 2*2
	lenPath   = 108
	lenUNIX   = 2 * lenPath
	lenPrefix = 16 // signature, version, family, length
	maxLength = 1<<16 - 1
)
