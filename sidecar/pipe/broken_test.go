package pipe

import (
	"bytes"
	"errors"
	"io"
	"syscall"
	"testing"
)

// One end closes everything while the other still sends: what was on its way is
// delivered, and the record calls it a reset, which is no error.
func TestFarClosesWhileNearSends(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b kind) {
		r := newRig(t, a, b)
		mustWrite(t, r.near, "x")
		_, err := io.ReadFull(r.far, make([]byte, 1))
		check(t, err)
		mustWrite(t, r.far, "goodbye")
		r.far.Close()
		got := make([]byte, 7)
		_, err = io.ReadFull(r.near, got)
		check(t, err)
		for err == nil { // until the pipe lets us know
			_, err = r.near.Write(make([]byte, 1<<20))
		}
		if res := r.wait(t); string(got) != "goodbye" || res.Cause != Reset || res.Backward != 7 {
			t.Errorf("%q, %+v", got, res)
		}
	})
}

func TestResetAfterDataDeliversTheData(t *testing.T) {
	for _, p := range [][2]kind{{tls13, tcp}, {tcp, tls13}} {
		t.Run(string(p[0])+"-"+string(p[1]), func(t *testing.T) {
			r := newRig(t, p[0], p[1])
			data := bytes.Repeat([]byte("data"), 10_000)
			_, err := r.near.Write(data)
			check(t, err)
			got := make([]byte, len(data))
			_, err = io.ReadFull(r.far, got)
			check(t, err)
			raw(r.near).SetLinger(0)
			raw(r.near).Close()
			if _, err := r.far.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("the far end read %v, want a reset", err)
			}
			if res := r.wait(t); !bytes.Equal(got, data) || res.Cause != Reset || res.Forward != int64(len(data)) {
				t.Errorf("%+v", res)
			}
		})
	}
}

// The kernel reports a reset once. If it tells the writing goroutine, the reading
// one must still not take the zero bytes it gets for a regular end.
func TestResetIsNeverACleanEnd(t *testing.T) {
	for _, p := range [][2]kind{{tls13, tcp}, {tcp, tls13}, {tcp, tcp}} {
		t.Run(string(p[0])+"-"+string(p[1]), func(t *testing.T) {
			for range 50 {
				r := newRig(t, p[0], p[1])
				mustWrite(t, r.far, "x")
				_, err := io.ReadFull(r.near, make([]byte, 1))
				check(t, err)
				flooded := make(chan error, 1)
				go func() {
					for {
						if _, err := r.near.Write(make([]byte, 1000)); err != nil {
							flooded <- err
							return
						}
					}
				}()
				raw(r.far).SetLinger(0)
				raw(r.far).Close()
				// Here too, the kernel tells one of the two.
				_, readErr := r.near.Read(make([]byte, 1))
				writeErr := <-flooded
				if !errors.Is(readErr, syscall.ECONNRESET) && !errors.Is(writeErr, syscall.ECONNRESET) {
					t.Fatalf("the near end read %v and wrote %v", readErr, writeErr)
				}
				if res := r.wait(t); res.Cause != Reset {
					t.Fatalf("%+v", res)
				}
			}
		})
	}
}

// A TLS peer that is killed leaves a bare FIN. The plaintext end must not take
// what it got for all there was, and must get all of what there was.
func TestTruncatedTLSIsNoCleanEnd(t *testing.T) {
	for _, version := range []kind{tls12, tls13} {
		t.Run(string(version), func(t *testing.T) {
			r := newRig(t, version, tcp)
			data := bytes.Repeat([]byte("data"), 50_000)
			_, err := r.near.Write(data)
			check(t, err)
			raw(r.near).CloseWrite()
			got, err := io.ReadAll(r.far)
			if err == nil {
				t.Error("the far end saw a clean end")
			}
			if res := r.wait(t); !bytes.Equal(got, data) || res.Cause != Truncated || !errors.Is(res.Err, ErrTruncated) {
				t.Errorf("%d of %d bytes, %+v", len(got), len(data), res)
			}
		})
	}
}

func TestGarbageInTLS(t *testing.T) {
	r := newRig(t, tls13, tcp)
	_, err := raw(r.near).Write([]byte{23, 3, 3, 0, 32, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32})
	check(t, err)
	if _, err := r.near.Read(make([]byte, 1)); err == nil || !isAlert(err) {
		t.Errorf("the near end read %v, want an alert", err)
	}
	if res := r.wait(t); res.Cause != Failed || res.Forward != 0 {
		t.Errorf("%+v", res)
	}
}

func TestAbort(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b kind) {
		r := newRig(t, a, b)
		mustWrite(t, r.near, "x")
		_, err := io.ReadFull(r.far, make([]byte, 1))
		check(t, err)
		why := errors.New("time is up")
		r.pipe.Abort(why)
		if res := r.wait(t); res.Cause != Aborted || res.Err != why || res.Forward != 1 {
			t.Errorf("%+v", res)
		}
	})
}
