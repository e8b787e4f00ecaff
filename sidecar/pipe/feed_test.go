package pipe

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

// FuzzFeeding has a TLS server read what plan says, in pieces of any size and with
// a byte changed: through a Socket it reads what it reads of the same bytes from
// a connection that blocks, and ends in the same way.
func FuzzFeeding(f *testing.F) {
	f.Add([]byte("dddd"), uint16(0), byte(0), []byte{1})
	f.Add([]byte("dDudzUdue"), uint16(3), byte(0), []byte{4, 200})
	f.Add([]byte("uuUUdDDDDDDe"), uint16(0), byte(0), []byte{255, 255})
	f.Add([]byte("dDd"), uint16(9), byte(1), []byte{13})
	f.Add([]byte("dDdad"), uint16(0), byte(0), []byte{})
	f.Add([]byte("Dd"), uint16(3), byte(255), []byte{5, 1})
	client, server := configs(f, tls13)
	server.SessionTicketsDisabled = true
	f.Fuzz(func(t *testing.T, plan []byte, at uint16, flip byte, sizes []byte) {
		plan = plan[:min(len(plan), 30)]
		want, wantErr := blocking(t, newFed(t, server, client, plan, at, flip))
		got, gotErr := piecemeal(t, newFed(t, server, client, plan, at, flip), sizes)
		if !bytes.Equal(got, want) || gotErr.Error() != wantErr.Error() {
			t.Errorf("%d bytes and %v, want %d and %v", len(got), gotErr, len(want), wantErr)
		}
	})
}

// fed is a TLS server after its handshake, and what is to be read by it.
type fed struct {
	server *tls.Conn
	conn   *swapped // below it
	stream []byte
}

// swapped is a connection that can be replaced.
type swapped struct{ net.Conn }

// newFed makes the records that plan says: data, much data, key updates that ask
// for an answer or don't, empty ones, an alert, the end.
func newFed(t *testing.T, server, client *tls.Config, plan []byte, at uint16, flip byte) *fed {
	t.Helper()
	left, right := net.Pipe()
	conn := &swapped{left}
	var keys strings.Builder
	client = client.Clone()
	client.KeyLogWriter = &keys
	s, c := tls.Server(conn, server), tls.Client(right, client)
	shaken := make(chan error, 1)
	go func() { shaken <- s.Handshake() }()
	check(t, c.Handshake())
	check(t, <-shaken)
	if c.ConnectionState().CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
		t.Skip("this machine has no AES instructions, so Go prefers another cipher suite")
	}
	out := newHalf(logged(t, keys.String(), "CLIENT_TRAFFIC_SECRET_0"))
	for i, what := range plan {
		switch what {
		case 'd':
			out.seal(typeData, bytes.Repeat([]byte{byte(i)}, 1+i))
		case 'D':
			out.seal(typeData, bytes.Repeat([]byte{byte(i)}, 1<<14))
		case 'u', 'U':
			out.seal(typeHandshake, keyUpdate(what == 'U'))
			out.rekey()
		case 'z':
			out.seal(typeData, nil)
		case 'a':
			out.seal(typeAlert, []byte{2, 42}) // bad_certificate
		case 'e':
			out.seal(typeAlert, []byte{1, 0})
		}
	}
	if len(out.buf) > 0 {
		out.buf[int(at)%len(out.buf)] ^= flip
	}
	return &fed{s, conn, out.buf}
}

// blocking reads all at once, up to the error that there always is.
func blocking(t *testing.T, f *fed) ([]byte, error) {
	t.Helper()
	f.conn.Conn = readConn{Reader: bytes.NewReader(f.stream)}
	var all bytes.Buffer
	buf := make([]byte, 40_000)
	for {
		n, err := f.server.Read(buf)
		all.Write(buf[:n])
		if err != nil {
			return all.Bytes(), err
		}
	}
}

// readConn is the reading half of a connection: what is written goes nowhere.
type readConn struct {
	net.Conn
	io.Reader
}

func (c readConn) Read(b []byte) (int, error)  { return c.Reader.Read(b) }
func (c readConn) Write(b []byte) (int, error) { return len(b), nil }

// piecemeal reads through a Socket that gets the stream bit by bit.
func piecemeal(t *testing.T, f *fed, sizes []byte) ([]byte, error) {
	t.Helper()
	sock := &Socket{buffers: new(Buffers), piped: true}
	f.conn.Conn = sock
	var all bytes.Buffer
	buf := make([]byte, 40_000)
	for i := 0; ; i++ {
		size := len(f.stream)
		if len(sizes) > 0 {
			size = min(size, 1+int(sizes[i%len(sizes)]))
		}
		if size == 0 {
			sock.inErr = io.EOF
		} else {
			sock.in = sock.buffers.take(size)
			sock.in.data = append(sock.in.array[:0], f.stream[:size]...)
			f.stream = f.stream[size:]
		}
		for {
			n, err := f.server.Read(buf)
			all.Write(buf[:n])
			if err == nil {
				continue
			}
			if errors.Is(err, wouldBlock{}) && size > 0 {
				break
			}
			return all.Bytes(), err
		}
		if sock.in != nil {
			t.Fatal("bytes were left where they were")
		}
	}
}
