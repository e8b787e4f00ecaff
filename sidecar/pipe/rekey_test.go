package pipe

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	mathrand "math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"
)

// Key updates (RFC 8446, section 4.6.3) that come while both directions are
// busy: every byte is read and written with the right key, in order.
func TestKeyUpdatesUnderLoad(t *testing.T) {
	for cut, size := range map[int]int{1: 20_000, 997: 1 << 20, 1 << 20: 4 << 20} { // cut: the most bytes sent at once
		near, r := newRekeyRig(t)
		// What comes back takes longer: a key update is not answered after that.
		bothWays(t, r, &updatingWriter{near, cut}, size, 4*size)
		if size > 1<<20 && near.in.updates < 3 {
			t.Errorf("%d key updates came back", near.in.updates)
		}
	}
}

// A peer that asks for new keys and does not read the answers cannot make us
// keep them all.
func TestKeyUpdateFloodIsBounded(t *testing.T) {
	near, r := newRekeyRig(t)
	go io.Copy(io.Discard, r.far)
	raw(r.near).SetReadBuffer(1) // the least there is
	r.far.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
	_, err := r.far.Write(make([]byte, 64<<20))
	if err == nil {
		t.Fatal("the near end's window is not full")
	}
	for range 200_000 { // far more than all the buffers of the kernel hold
		for range 8 {
			near.out.seal(typeHandshake, keyUpdate(true))
			near.out.rekey()
		}
		near.out.seal(typeData, []byte{1})
		if err = near.out.send(near.Conn); err != nil {
			break
		}
	}
	if err == nil {
		t.Error("1,600,000 key updates were taken")
	}
	if res := r.wait(t); res.Cause != Failed || !errors.Is(res.Err, errFlooded) {
		t.Errorf("%+v", res)
	}
}

const (
	typeAlert     = 21
	typeHandshake = 22
	typeData      = 23
)

func keyUpdate(request bool) []byte {
	msg := []byte{24, 0, 0, 1, 0}
	if request {
		msg[4] = 1
	}
	return msg
}

// rekeyConn is a TLS 1.3 client after its handshake, with a record layer that
// can update its keys, which crypto/tls only does when asked.
type rekeyConn struct {
	net.Conn
	in, out *half
	data    []byte // decrypted, not read yet
	readErr error
}

// half is one direction of a TLS_AES_128_GCM_SHA256 connection.
type half struct {
	secret  []byte
	aead    cipher.AEAD
	iv      []byte
	seq     uint64
	updates int
	buf     []byte // sealed and not sent yet
}

func newHalf(secret []byte) *half {
	h := &half{secret: secret}
	h.setKeys()
	return h
}

func (h *half) setKeys() {
	block, err := aes.NewCipher(expand(h.secret, "key", 16))
	if err != nil {
		panic(err)
	}
	if h.aead, err = cipher.NewGCM(block); err != nil {
		panic(err)
	}
	h.iv, h.seq = expand(h.secret, "iv", 12), 0
}

func (h *half) rekey() {
	h.secret = expand(h.secret, "traffic upd", 32)
	h.updates++
	h.setKeys()
}

// expand is HKDF-Expand-Label (RFC 8446, section 7.1) with an empty context.
func expand(secret []byte, label string, n int) []byte {
	label = "tls13 " + label
	info := append([]byte{0, byte(n), byte(len(label))}, label...)
	out, err := hkdf.Expand(sha256.New, secret, string(append(info, 0)), n)
	if err != nil {
		panic(err)
	}
	return out
}

func (h *half) nonce() []byte {
	nonce := make([]byte, 12)
	binary.BigEndian.PutUint64(nonce[4:], h.seq)
	for i := range nonce {
		nonce[i] ^= h.iv[i]
	}
	h.seq++
	return nonce
}

func (h *half) seal(typ byte, data []byte) {
	header := []byte{23, 3, 3, 0, 0}
	binary.BigEndian.PutUint16(header[3:], uint16(len(data)+1+16))
	h.buf = append(h.buf, header...)
	h.buf = h.aead.Seal(h.buf, h.nonce(), append(data[:len(data):len(data)], typ), header)
}

func (h *half) send(w io.Writer) error {
	_, err := w.Write(h.buf)
	h.buf = h.buf[:0]
	return err
}

func (c *rekeyConn) Read(b []byte) (int, error) {
	for len(c.data) == 0 && c.readErr == nil {
		c.readErr = c.readRecord()
	}
	if len(c.data) == 0 {
		return 0, c.readErr
	}
	n := copy(b, c.data)
	c.data = c.data[n:]
	return n, nil
}

func (c *rekeyConn) readRecord() error {
	header := make([]byte, 5)
	if _, err := io.ReadFull(c.Conn, header); err != nil {
		return err
	}
	record := make([]byte, binary.BigEndian.Uint16(header[3:]))
	if _, err := io.ReadFull(c.Conn, record); err != nil {
		return err
	}
	plain, err := c.in.aead.Open(nil, c.in.nonce(), record, header)
	if err != nil {
		return err
	}
	switch last := len(plain) - 1; plain[last] {
	case typeData:
		c.data = plain[:last]
	case typeHandshake:
		if string(plain[:last]) != string(keyUpdate(false)) {
			return errors.New("not a key update")
		}
		c.in.rekey()
	case typeAlert:
		if plain[1] == 0 {
			return io.EOF
		}
		return errors.New("alert")
	}
	return nil
}

// updatingWriter updates the keys at random places, twice in a row at times, and
// sends at most cut bytes at once, so that records come in pieces.
type updatingWriter struct {
	*rekeyConn
	cut int
}

func (w *updatingWriter) Write(b []byte) (int, error) {
	for left := b; len(left) > 0; {
		n := min(len(left), 1+mathrand.IntN(1<<14))
		w.out.seal(typeData, left[:n])
		left = left[n:]
		for range mathrand.IntN(3) {
			w.out.seal(typeHandshake, keyUpdate(mathrand.IntN(2) == 0))
			w.out.rekey()
		}
	}
	return len(b), w.sendCut()
}

func (w *updatingWriter) sendCut() error {
	for buf := w.out.buf; len(buf) > 0; {
		n := min(len(buf), w.cut)
		if _, err := w.Conn.Write(buf[:n]); err != nil {
			return err
		}
		buf = buf[n:]
	}
	w.out.buf = w.out.buf[:0]
	return nil
}

func (w *updatingWriter) CloseWrite() error {
	w.out.seal(typeAlert, []byte{1, 0})
	return w.sendCut()
}

// newRekeyRig is a rig whose near end is left to its record layer.
func newRekeyRig(t *testing.T) (*rekeyConn, *rig) {
	t.Helper()
	var keys strings.Builder
	r := newRigWith(t, tls13, tcp, Options{}, func(n *nearEnd) {
		n.client.KeyLogWriter = &keys
		n.server.SessionTicketsDisabled = true // their records would have to be read too
	})
	if r.near.(*tls.Conn).ConnectionState().CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
		t.Skip("this machine has no AES instructions, so Go prefers another cipher suite")
	}
	c := &rekeyConn{Conn: raw(r.near), in: newHalf(logged(t, keys.String(), "SERVER_TRAFFIC_SECRET_0")), out: newHalf(logged(t, keys.String(), "CLIENT_TRAFFIC_SECRET_0"))}
	return c, r
}

// logged is a secret from what tls.Config.KeyLogWriter was given.
func logged(t testing.TB, keys, label string) []byte {
	t.Helper()
	for line := range strings.Lines(keys) {
		if f := strings.Fields(line); f[0] == label {
			s, err := hex.DecodeString(f[2])
			check(t, err)
			return s
		}
	}
	t.Fatalf("no %s", label)
	return nil
}
