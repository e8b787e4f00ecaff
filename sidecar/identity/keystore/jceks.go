package keystore

import (
	"bytes"
	"crypto/sha1"
	"crypto/subtle"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"
)

// A Java keystore begins with one of these. After them come a version, the number of entries, the entries, and a SHA-1 hash
// over the password, a constant and everything before. Numbers are big-endian (java.io.DataOutputStream).
const (
	magicJCEKS = 0xcececece
	magicJKS   = 0xfeedfeed
	// hashConstant is in every store's hash, between the password and the data.
	hashConstant = "Mighty Aphrodite"
)

// The kinds of entries.
const (
	tagPrivateKey  = 1
	tagCertificate = 2
	tagSecretKey   = 3 // in JCEKS only: a serialized Java object, whose length isn't told
)

// entry is a private key and its chain.
type entry struct {
	alias     string
	protected []byte // EncryptedPrivateKeyInfo (RFC 5958), with Sun's algorithms
	chain     []*x509.Certificate
}

// parseJCEKS reads a JCEKS or JKS keystore with one private key, whose password is the store's.
func parseJCEKS(data []byte, password string) (Contents, error) {
	if len(data) < 12+sha1.Size {
		return Contents{}, errors.New("the file is cut off")
	}
	body, want := data[:len(data)-sha1.Size], data[len(data)-sha1.Size:]
	if magic := binary.BigEndian.Uint32(body); magic != magicJCEKS && magic != magicJKS {
		return Contents{}, errors.New("the file is no Java keystore")
	}
	// Everything after is read only from a file that is whole.
	hash := sha1.New()
	hash.Write(wide(password))
	hash.Write([]byte(hashConstant))
	hash.Write(body)
	if subtle.ConstantTimeCompare(hash.Sum(nil), want) != 1 {
		return Contents{}, errPassword
	}
	entries, err := readEntries(body)
	if err != nil {
		return Contents{}, err
	}
	switch len(entries) {
	case 0:
		return Contents{}, errors.New("there is no private key")
	case 1:
	default:
		var aliases []string
		for _, e := range entries {
			aliases = append(aliases, fmt.Sprintf("%q", e.alias))
		}
		slices.Sort(aliases) // their order in the file is that of a hash table
		return Contents{}, fmt.Errorf("there are %d private keys, %s: keep one, with keytool -delete", len(entries), strings.Join(aliases, ", "))
	}
	key, err := recoverKey(entries[0].protected, password)
	if err != nil {
		return Contents{}, fmt.Errorf("private key %q: %w", entries[0].alias, err)
	}
	return Contents{Certificates: entries[0].chain, Key: key}, nil
}

func readEntries(body []byte) ([]entry, error) {
	r := &reader{data: body[4:]}
	version, count := r.uint32(), r.uint32()
	if version != 1 && version != 2 {
		return nil, fmt.Errorf("keystore version %d: use keytool to write version 2", version)
	}
	var entries []entry
	for i := range count {
		tag, alias := r.uint32(), string(r.bytes(r.uint16()))
		r.bytes(8) // the date
		switch {
		case r.short:
		case tag == tagPrivateKey:
			e := entry{alias: alias, protected: r.bytes(r.uint32())}
			for range r.uint32() {
				cert, err := r.certificate(version)
				if err != nil {
					return nil, fmt.Errorf("chain of %q: %w", alias, err)
				}
				e.chain = append(e.chain, cert)
			}
			entries = append(entries, e)
		case tag == tagCertificate:
			if _, err := r.certificate(version); err != nil {
				return nil, fmt.Errorf("certificate %q: %w", alias, err)
			}
		case tag == tagSecretKey:
			return nil, fmt.Errorf("entry %q is a secret key, which only Java can read: delete it, with keytool -delete", alias)
		default:
			return nil, fmt.Errorf("entry %d is of unknown kind %d", i+1, tag)
		}
		if r.short {
			return nil, errShort
		}
	}
	return entries, nil
}

var errShort = errors.New("an entry is longer than the file")

// reader reads big-endian values. Once the data is too short for one, it stays so.
type reader struct {
	data  []byte
	short bool
}

func (r *reader) bytes(n uint32) []byte {
	if r.short = r.short || uint64(n) > uint64(len(r.data)); r.short {
		return nil
	}
	b := r.data[:n]
	r.data = r.data[n:]
	return b
}

func (r *reader) uint32() uint32 {
	if b := r.bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint16() uint32 {
	if b := r.bytes(2); b != nil {
		return uint32(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (r *reader) certificate(version uint32) (*x509.Certificate, error) {
	kind := []byte("X.509")
	if version == 2 {
		kind = r.bytes(r.uint16())
	}
	der := r.bytes(r.uint32())
	if r.short {
		return nil, errShort
	}
	if !bytes.Equal(kind, []byte("X.509")) {
		return nil, fmt.Errorf("a certificate of type %.20q: use X.509", kind)
	}
	return x509.ParseCertificate(der)
}

// wide is a password as java.lang.String has it: UTF-16, big-endian.
func wide(password string) []byte {
	var b []byte
	for _, unit := range utf16.Encode([]rune(password)) {
		b = binary.BigEndian.AppendUint16(b, unit)
	}
	return b
}
