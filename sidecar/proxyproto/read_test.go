package proxyproto_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	pires "github.com/pires/go-proxyproto"

	"github.com/lanyard-mtls/lanyard/sidecar/proxyproto"
)

// bytesConn is a net.Conn that only reads, to see how far.
type bytesConn struct {
	net.Conn
	*bytes.Reader
}

func (c bytesConn) Read(b []byte) (int, error) { return c.Reader.Read(b) }

func read(b []byte) (info proxyproto.Info, left int, err error) {
	c := bytesConn{Reader: bytes.NewReader(b)}
	info, err = proxyproto.Read(c)
	return info, c.Len(), err
}

const sig = "\r\n\r\n\x00\r\nQUIT\n"

// seeds are headers of both versions, good and bad.
var seeds = map[string]string{
	"v1 tcp4":       "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n",
	"v1 tcp6":       "PROXY TCP6 2001:db8::1 ::ffff:192.0.2.1 1 65535\r\n",
	"v1 unknown":    "PROXY UNKNOWN\r\n",
	"v1 longest":    "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
	"v2 local":      sig + "\x20\x00\x00\x00",
	"v2 local tlv":  sig + "\x20\x11\x00\x03\xff\xff\xff",
	"v2 unspec":     sig + "\x21\x00\x00\x00",
	"v2 tcp4":       sig + "\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x02\x04\x00\x01\xbb",
	"v2 tcp4 tlv":   sig + "\x21\x11\x00\x11\xc0\x00\x02\x01\xc6\x33\x64\x02\x04\x00\x01\xbb\x01\x00\x02h2",
	"v2 tcp6":       sig + "\x21\x21\x00\x24" + strings.Repeat("\x20\x01", 16) + "\x00\x01\x00\x02",
	"v2 unix":       sig + "\x21\x31\x00\xd8/run/a" + strings.Repeat("\x00", 102) + "/run/b" + strings.Repeat("\x00", 102),
	"v2 crc":        sig + "\x21\x00\x00\x07\x03\x00\x04\x3e\xc9\x89\x4e",
	"v2 dgram":      sig + "\x21\x12\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x02\x04\x00\x01\xbb",
	"v2 truncated":  sig + "\x21\x11\x00\x0b\xc0\x00\x02\x01\xc6\x33\x64\x02\x04\x00\x01",
	"v2 bad tlv":    sig + "\x21\x00\x00\x03\x01\x00\x01",
	"v2 version":    sig + "\x31\x11\x00\x00",
	"tls":           "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03abc",
	"http":          "GET / HTTP/1.1\r\n\r\n",
	"v1 udp":        "PROXY UDP4 192.0.2.1 198.51.100.2 56324 443\r\n",
	"v1 swapped":    "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
	"v1 port":       "PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n",
	"v1 zero port":  "PROXY TCP4 192.0.2.1 198.51.100.2 0443 443\r\n",
	"v1 no cr":      "PROXY TCP4 192.0.2.1 198.51.100.2 1 443\n",
	"v1 long":       "PROXY UNKNOWN " + strings.Repeat("x", 100) + "\r\n",
	"v1 two crs":    "PROXY UNKNOWN\r\r\n",
	"v1 zone":       "PROXY TCP6 fe80::1%eth0 fe80::2 1 2\r\n",
	"v1 few fields": "PROXY TCP4 192.0.2.1\r\n",
}

// Gap 21: PROXY headers were never accepted.
func TestGap21ReadsHeadersExactly(t *testing.T) {
	for name, want := range map[string]string{
		"v1 tcp4":      "192.0.2.1:56324 198.51.100.2:443",
		"v1 tcp6":      "[2001:db8::1]:1 192.0.2.1:65535",
		"v1 unknown":   "",
		"v1 longest":   "",
		"v2 local":     "",
		"v2 local tlv": "",
		"v2 unspec":    "",
		"v2 tcp4":      "192.0.2.1:1024 198.51.100.2:443",
		"v2 tcp4 tlv":  "192.0.2.1:1024 198.51.100.2:443 01=h2",
		"v2 tcp6":      "[2001:2001:2001:2001:2001:2001:2001:2001]:1 [2001:2001:2001:2001:2001:2001:2001:2001]:2",
		"v2 unix":      "/run/a /run/b",
		"v2 crc":       "",
	} {
		const behind = "\x16\x03\x01 what follows"
		info, left, err := read([]byte(seeds[name] + behind))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []string
		if info.Source != nil {
			got = append(got, info.Source.String(), info.Destination.String())
		}
		for _, tlv := range info.TLVs {
			if tlv.Type == proxyproto.TypeALPN {
				got = append(got, "01="+string(tlv.Value))
			}
		}
		if g := strings.Join(got, " "); g != want || left != len(behind) {
			t.Errorf("%s: %q with %d bytes left, want %q with %d", name, g, left, want, len(behind))
		}
	}
}

func TestReadRefuses(t *testing.T) {
	for name, want := range map[string]string{
		"v2 dgram":      "family and transport 0x12",
		"v2 truncated":  "11 bytes of addresses: want 12",
		"v2 bad tlv":    "TLV 0x01 of 1 bytes is longer",
		"v2 version":    "version and command 0x31",
		"tls":           "but a TLS handshake: let the balancer send",
		"http":          `no PROXY header, but "GET / HTTP/1"`,
		"v1 udp":        "want TCP4, TCP6 or UNKNOWN",
		"v1 swapped":    "want two addresses of that family",
		"v1 port":       "two ports",
		"v1 zero port":  "two ports",
		"v1 no cr":      "ends with",
		"v1 long":       "at most 107 bytes",
		"v1 two crs":    "line's end",
		"v1 zone":       "two addresses",
		"v1 few fields": "want two addresses and two ports",
	} {
		if info, _, err := read([]byte(seeds[name] + "\n\n")); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %+v, %v; want one line with %q", name, info, err, want)
		}
	}
	bad := []byte(seeds["v2 crc"])
	bad[len(bad)-1]++
	if _, _, err := read(bad); err == nil || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("a wrong checksum: %v", err)
	}
	for name, seed := range seeds {
		if info, _, err := read([]byte(seed)); err != nil || info.Source == nil {
			continue
		}
		for i := range seed {
			_, _, err := read([]byte(seed[:i]))
			if want := map[bool]error{true: io.EOF, false: io.ErrUnexpectedEOF}[i == 0]; !errors.Is(err, want) {
				t.Errorf("%s cut at %d: %v, want %v", name, i, err, want)
			}
		}
	}
}

func TestReadObeysTheDeadline(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	go client.Write([]byte(seeds["v2 tcp4"])[:14])
	if err := server.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := proxyproto.Read(server); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v, want a timeout", err)
	}
}

// FuzzRead compares with github.com/pires/go-proxyproto: what Read takes, that takes too, and finds the same.
func FuzzRead(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		info, left, err := read(b)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r") {
				t.Fatalf("not one line: %q", err)
			}
			return
		}
		used := b[:len(b)-left]
		if again, _, err := read(used); err != nil || (again.Source == nil) != (info.Source == nil) {
			t.Fatalf("%q is not all that was needed: %v", used, err)
		}
		if used[0] == sig[0] && (used[12] == 0x20 || used[13] == 0) {
			return // pires parses what LOCAL says to discard, and refuses a PROXY without addresses
		}
		reader := bufio.NewReaderSize(bytes.NewReader(b), 1<<17)
		theirs, err := pires.Read(reader)
		if err != nil {
			t.Fatalf("%q: we read %v, pires says %v", used, info.Source, err)
		}
		if info.Source == nil {
			return
		}
		if _, unix := info.Source.(*net.UnixAddr); unix {
			return // pires cuts abstract names at their first byte, which is 0
		}
		if theirs.SourceAddr.String() != info.Source.String() || theirs.DestinationAddr.String() != info.Destination.String() {
			t.Fatalf("%q: %v %v, pires %v %v", used, info.Source, info.Destination, theirs.SourceAddr, theirs.DestinationAddr)
		}
		if reader.Buffered() != left {
			t.Fatalf("%q: %d bytes left, pires leaves %d", used, left, reader.Buffered())
		}
	})
}
