package proxyproto_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	pires "github.com/pires/go-proxyproto"

	"github.com/lanyard-mtls/lanyard/sidecar/proxyproto"
)

func tcp(s string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s)) }

func unixAddr(s string) net.Addr { return &net.UnixAddr{Net: "unix", Name: s} }

func header(t *testing.T, mode proxyproto.Mode, info proxyproto.Info) []byte {
	t.Helper()
	b, err := proxyproto.Header(mode, info)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestHeaderBytes(t *testing.T) {
	state := &tls.ConnectionState{
		Version: tls.VersionTLS13, ServerName: "db.test", NegotiatedProtocol: "h2",
		PeerCertificates: []*x509.Certificate{{Raw: []byte("DER"), Subject: pkix.Name{CommonName: "cn"}}, {Raw: []byte("CA")}},
	}
	noCN := &tls.ConnectionState{Version: tls.VersionTLS12, PeerCertificates: []*x509.Certificate{{Raw: []byte("DER")}}}
	ends := proxyproto.Info{Source: tcp("192.0.2.1:1024"), Destination: tcp("198.51.100.2:443"), SPIFFEID: "spiffe://td.test/a"}
	with := func(s *tls.ConnectionState) proxyproto.Info { i := ends; i.TLS = s; return i }
	const v4 = "\xc0\x00\x02\x01\xc6\x33\x64\x02\x04\x00\x01\xbb"
	const id = "\xe5\x00\x12spiffe://td.test/a"
	for name, tt := range map[string]struct {
		mode proxyproto.Mode
		info proxyproto.Info
		want string
	}{
		"none":     {proxyproto.None, with(state), ""},
		"conn":     {proxyproto.Conn, with(state), sig + "\x21\x11\x00\x0c" + v4},
		"tls":      {proxyproto.TLS, with(state), sig + "\x21\x11\x00\x42" + v4 + "\x01\x00\x02h2\x02\x00\x07db.test\x20\x00\x0f\x01\x00\x00\x00\x00\x21\x00\x07TLS 1.3" + id},
		"tls-full": {proxyproto.TLSFull, with(state), sig + "\x21\x11\x00\x4d" + v4 + "\x01\x00\x02h2\x02\x00\x07db.test\x20\x00\x1a\x07\x00\x00\x00\x00\x21\x00\x07TLS 1.3\x22\x00\x02cn\x28\x00\x03DER" + id},
		"no cn":    {proxyproto.TLSFull, with(noCN), sig + "\x21\x11\x00\x39" + v4 + "\x20\x00\x15\x07\x00\x00\x00\x00\x21\x00\x07TLS 1.2\x28\x00\x03DER" + id},
		"no cert":  {proxyproto.TLSFull, with(&tls.ConnectionState{Version: tls.VersionTLS13}), sig + "\x21\x11\x00\x33" + v4 + "\x20\x00\x0f\x01\x00\x00\x00\x00\x21\x00\x07TLS 1.3" + id},
		"mixed": {proxyproto.Conn, proxyproto.Info{Source: tcp("192.0.2.1:1"), Destination: tcp("[2001:db8::1]:2")},
			sig + "\x21\x21\x00\x24\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x01\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01\x00\x02"},
		"mapped": {proxyproto.Conn, proxyproto.Info{Source: tcp("[::ffff:192.0.2.1]:1024"), Destination: tcp("198.51.100.2:443")}, sig + "\x21\x11\x00\x0c" + v4},
		"unix": {proxyproto.Conn, proxyproto.Info{Source: unixAddr("@a"), Destination: unixAddr("/run/b")},
			sig + "\x21\x31\x00\xd8\x00a" + strings.Repeat("\x00", 106) + "/run/b" + strings.Repeat("\x00", 102)},
		"unknown":         {proxyproto.Conn, proxyproto.Info{}, sig + "\x20\x00\x00\x00"},
		"unix and tcp":    {proxyproto.Conn, proxyproto.Info{Source: unixAddr(""), Destination: tcp("192.0.2.1:1")}, sig + "\x20\x00\x00\x00"},
		"unknown but tls": {proxyproto.TLS, proxyproto.Info{SPIFFEID: "spiffe://td.test/a"}, sig + "\x21\x00\x00\x15" + id},
	} {
		t.Run(name, func(t *testing.T) {
			got := header(t, tt.mode, tt.info)
			if string(got) != tt.want {
				t.Errorf("got\n%swant\n%s", hex.Dump(got), hex.Dump([]byte(tt.want)))
			}
		})
	}
}

// Gap 7: an SVID has no common name, so a backend had to parse the certificate to see who is there.
func TestGap07BackendSeesTheSPIFFEID(t *testing.T) {
	info := proxyproto.Info{Source: tcp("192.0.2.1:1"), Destination: tcp("192.0.2.2:2"), SPIFFEID: "spiffe://td.test/web"}
	for mode, want := range map[proxyproto.Mode]bool{proxyproto.Conn: false, proxyproto.TLS: true, proxyproto.TLSFull: true} {
		theirs, err := pires.Read(bufio.NewReader(bytes.NewReader(header(t, mode, info))))
		if err != nil {
			t.Fatal(err)
		}
		tlvs, err := theirs.TLVs()
		if err != nil {
			t.Fatal(err)
		}
		got := len(tlvs) == 1 && byte(tlvs[0].Type) == proxyproto.TypeSPIFFEID && string(tlvs[0].Value) == info.SPIFFEID
		if got != want {
			t.Errorf("mode %s: %v", mode, tlvs)
		}
	}
}

func TestHeaderTooLarge(t *testing.T) {
	for _, size := range []int{1<<16 - 20, 1 << 16} {
		info := proxyproto.Info{TLS: &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{Raw: make([]byte, size)}}}, SPIFFEID: "spiffe://td.test/a"}
		if _, err := proxyproto.Header(proxyproto.TLSFull, info); err == nil || !strings.Contains(err.Error(), "use mode tls") {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	if _, err := proxyproto.Header(proxyproto.Conn, proxyproto.Info{Source: unixAddr(strings.Repeat("x", 109)), Destination: unixAddr("")}); err == nil {
		t.Error("a path too long was told")
	}
}

func TestParseMode(t *testing.T) {
	for _, s := range []string{"conn", "tls", "tls-full"} {
		if m, err := proxyproto.ParseMode("proxy_protocol", s); err != nil || string(m) != s {
			t.Errorf("%s: %q, %v", s, m, err)
		}
	}
	for _, s := range []string{"", "TLS", "full"} {
		if _, err := proxyproto.ParseMode("proxy_protocol", s); err == nil || !strings.Contains(err.Error(), "use conn, tls or tls-full") {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestTrusted(t *testing.T) {
	all, err := proxyproto.ParseTrusted("accept_proxy_protocol", []string{"10.0.0.0/8", "2001:db8::/32", "192.0.2.7", "unix"})
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[net.Addr]bool{
		tcp("10.255.0.1:1"): true, tcp("[::ffff:10.0.0.1]:1"): true, tcp("11.0.0.1:1"): false, tcp("[2001:db8::1%lo]:1"): true,
		tcp("[2001:db9::1]:1"): false, tcp("192.0.2.7:1"): true, tcp("192.0.2.8:1"): false, unixAddr("/run/a"): true, &net.UDPAddr{IP: net.IPv4(10, 0, 0, 1)}: false,
	} {
		if got := all.Contains(addr); got != want {
			t.Errorf("%v: %v", addr, got)
		}
	}
	none, err := proxyproto.ParseTrusted("accept_proxy_protocol", nil)
	if err != nil || !none.IsZero() || none.Contains(tcp("10.0.0.1:1")) || none.Contains(unixAddr("")) || all.IsZero() {
		t.Errorf("nobody is trusted: %+v, %v", none, err)
	}
	_, err = proxyproto.ParseTrusted("accept_proxy_protocol", []string{"10.0.0.1/8", "lb.test", "::ffff:10.0.0.1", "10.0.0.0/33", "fe80::1%lo"})
	want := `accept_proxy_protocol 10.0.0.1/8: has bits behind its first 8: give 10.0.0.0/8 or 10.0.0.1
accept_proxy_protocol lb.test: not a range of addresses: give ADDRESS/BITS, ADDRESS or unix
accept_proxy_protocol ::ffff:10.0.0.1: an IPv4 address written as IPv6: write it as IPv4
accept_proxy_protocol 10.0.0.0/33: not a range of addresses: give ADDRESS/BITS, ADDRESS or unix
accept_proxy_protocol fe80::1%lo: not a range of addresses: give ADDRESS/BITS, ADDRESS or unix`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

// FuzzHeader writes headers that Read and pires find the same in.
func FuzzHeader(f *testing.F) {
	f.Add("192.0.2.1:1", "192.0.2.2:2", "db.test", "h2", "cn", []byte("DER"))
	f.Add("[2001:db8::1]:1", "192.0.2.2:2", "", "", "", []byte(nil))
	f.Fuzz(func(t *testing.T, source, destination, sni, alpn, cn string, der []byte) {
		s, err1 := netip.ParseAddrPort(source)
		d, err2 := netip.ParseAddrPort(destination)
		if err1 != nil || err2 != nil {
			return
		}
		info := proxyproto.Info{Source: net.TCPAddrFromAddrPort(s), Destination: net.TCPAddrFromAddrPort(d), SPIFFEID: "spiffe://td.test/" + cn}
		info.TLS = &tls.ConnectionState{Version: tls.VersionTLS13, ServerName: sni, NegotiatedProtocol: alpn, PeerCertificates: []*x509.Certificate{{Raw: der, Subject: pkix.Name{CommonName: cn}}}}
		b, err := proxyproto.Header(proxyproto.TLSFull, info)
		if err != nil {
			return
		}
		ours, left, err := read(append(b, "more"...))
		if err != nil || left != len("more") {
			t.Fatalf("%q: %v, %d left", b, err, left)
		}
		theirs, err := pires.Read(bufio.NewReaderSize(bytes.NewReader(b), 1<<17))
		if err != nil {
			t.Fatalf("%q: %v", b, err)
		}
		for _, pair := range [][2]net.Addr{{theirs.SourceAddr, ours.Source}, {theirs.DestinationAddr, ours.Destination}} {
			if pair[0].String() != pair[1].String() {
				t.Fatalf("%v, pires %v", pair[1], pair[0])
			}
		}
		tlvs, err := theirs.TLVs()
		if err != nil {
			t.Fatal(err)
		}
		var same []proxyproto.TLV
		for _, tlv := range tlvs {
			same = append(same, proxyproto.TLV{Type: byte(tlv.Type), Value: tlv.Value})
		}
		if diff := cmp.Diff(same, ours.TLVs); diff != "" {
			t.Fatal(diff)
		}
	})
}
