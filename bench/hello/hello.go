// Package hello reads the first answer of a TLS server off the wire, which is not encrypted: what version, suite and key
// exchange two programs agreed on, and whether they resumed a session. It carries no handshake out and checks none.
package hello

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Server is what a ServerHello says.
type Server struct {
	Version uint16      // tls.VersionTLS13
	Suite   uint16      // tls.TLS_AES_128_GCM_SHA256
	Group   tls.CurveID // 0 without a key exchange
	Resumed bool        // in TLS 1.3
}

func (s Server) String() string {
	how := "full"
	if s.Resumed {
		how = "resumed"
	}
	return fmt.Sprintf("%s, %v, %s, %s", tls.VersionName(s.Version), s.Group, tls.CipherSuiteName(s.Suite), how)
}

const (
	recordHandshake   = 22
	messageHello      = 2
	extensionPSK      = 41
	extensionVersions = 43
	extensionKeyShare = 51

	maxRecord = 1<<14 + 256
)

// retry is the Random of a ServerHello that is a HelloRetryRequest, its first bytes (RFC 8446, 4.1.3).
const retry = "\xcf\x21\xad\x74\xe5\x9a\x61\x11"

var errShort = errors.New("shorter than it says")

// ReadServer reads records until the server's hello is whole. It passes by HelloRetryRequests. The error is of the
// reader, or says what is no TLS.
func ReadServer(r io.Reader) (Server, error) {
	var message []byte
	for {
		record, err := readRecord(r)
		if err != nil {
			return Server{}, err
		}
		if record.kind != recordHandshake {
			continue // change_cipher_spec after a retry
		}
		message = append(message, record.body...)
		if len(message) < 4 {
			continue
		}
		size := int(message[1])<<16 | int(message[2])<<8 | int(message[3])
		if message[0] != messageHello || size > maxRecord {
			return Server{}, fmt.Errorf("handshake message %d of %d bytes, not a server's hello", message[0], size)
		}
		if len(message) < 4+size {
			continue
		}
		server, retried, err := parse(message[4 : 4+size])
		if err != nil || !retried {
			return server, err
		}
		message = nil
	}
}

type record struct {
	kind byte
	body []byte
}

func readRecord(r io.Reader) (record, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return record{}, err
	}
	size := int(binary.BigEndian.Uint16(head[3:]))
	if head[1] != 3 || size == 0 || size > maxRecord {
		return record{}, fmt.Errorf("bytes % x are no TLS record", head)
	}
	if head[0] == 21 {
		return record{}, errors.New("an alert instead of a hello")
	}
	body := make([]byte, size)
	_, err := io.ReadFull(r, body)
	return record{head[0], body}, err
}

// parse reads the body of a ServerHello (RFC 8446, 4.1.3).
func parse(body []byte) (s Server, retried bool, err error) {
	if len(body) < 2+32+1 {
		return s, false, errShort
	}
	s.Version = binary.BigEndian.Uint16(body)
	retried = string(body[2:10]) == retry
	rest := body[34:]
	session := int(rest[0])
	if len(rest) < 1+session+3 {
		return s, false, errShort
	}
	rest = rest[1+session:]
	s.Suite = binary.BigEndian.Uint16(rest)
	rest = rest[3:] // the compression method is the third
	if len(rest) == 0 {
		return s, retried, nil // TLS 1.2 without extensions
	}
	if len(rest) < 2 || len(rest) != 2+int(binary.BigEndian.Uint16(rest)) {
		return s, false, errShort
	}
	for rest = rest[2:]; len(rest) > 0; {
		if len(rest) < 4 || len(rest) < 4+int(binary.BigEndian.Uint16(rest[2:])) {
			return s, false, errShort
		}
		kind, size := binary.BigEndian.Uint16(rest), int(binary.BigEndian.Uint16(rest[2:]))
		s.extension(kind, rest[4:4+size])
		rest = rest[4+size:]
	}
	return s, retried, nil
}

func (s *Server) extension(kind uint16, body []byte) {
	if kind == extensionPSK {
		s.Resumed = true
	}
	if len(body) < 2 {
		return
	}
	switch kind {
	case extensionVersions:
		s.Version = binary.BigEndian.Uint16(body)
	case extensionKeyShare:
		s.Group = tls.CurveID(binary.BigEndian.Uint16(body))
	}
}
