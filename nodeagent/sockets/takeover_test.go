package sockets

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// While one agent follows another, clients connect as fast as they can: none is
// refused, and none goes without an answer.
func TestTakeOverRefusesNobody(t *testing.T) {
	cfg := setup(t, "workload", "admin")
	one := start(t, "one", cfg, nil)
	stop := make(chan struct{})
	var clients sync.WaitGroup
	var mu sync.Mutex
	answers := map[string]int{}
	for i := range 4 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				name, err := ask(cfg.Specs[i%2].Path)
				if err != nil {
					t.Errorf("a client was refused: %v", err)
					return
				}
				mu.Lock()
				answers[name]++
				mu.Unlock()
			}
		})
	}
	answered := func(name string) func() bool {
		return func() bool { mu.Lock(); defer mu.Unlock(); return answers[name] > 20 }
	}
	eventually(t, "the first answers", answered("one"))
	cfg.TakeOver = true
	was, err := fileAt(cfg.Specs[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	two := start(t, "two", cfg, nil)
	if err := one.ended(t); err != nil {
		t.Errorf("the first: %v", err)
	}
	eventually(t, "the second answers", answered("two"))
	three := start(t, "three", cfg, nil)
	if err := two.ended(t); err != nil {
		t.Errorf("the second: %v", err)
	}
	eventually(t, "the third answers", answered("three"))
	close(stop)
	clients.Wait()
	if now, err := fileAt(cfg.Specs[0].Path); err != nil || now != was {
		t.Errorf("the file is another now: %v", err)
	}
	three.stop()
	if err := three.ended(t); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(cfg.Specs[0].Path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the last one left the file: %v", err)
	}
}

// An agent that fails after it has the sockets, and even after it has the lock,
// leaves the one before serving.
func TestFailedTakeOverChangesNothing(t *testing.T) {
	cfg := setup(t, "workload")
	path := cfg.Specs[0].Path
	one := start(t, "one", cfg, nil)
	taker := cfg
	taker.TakeOver = true

	t.Run("before it takes the lock", func(t *testing.T) {
		set, err := Open(t.Context(), taker)
		if err != nil {
			t.Fatal(err)
		}
		wantAnswer(t, path, "one") // it serves meanwhile
		if err := set.Close(false); err != nil {
			t.Fatal(err)
		}
		wantAnswer(t, path, "one")
	})
	t.Run("with the sockets of another configuration", func(t *testing.T) {
		other := taker
		other.Specs = append(other.Specs, Spec{Name: "more", Path: cfg.DataDir, Mode: 0o600, UID: -1, GID: -1})
		if _, err := Open(t.Context(), other); err == nil {
			t.Fatal("a directory was listened on")
		}
		wantAnswer(t, path, "one")
	})
	t.Run("after it has the lock", func(t *testing.T) {
		broken := errors.New("broken")
		two := start(t, "two", taker, broken)
		if err := two.ended(t); !errors.Is(err, broken) {
			t.Errorf("error %v", err)
		}
		one.serves(t)
		wantAnswer(t, path, "one")
	})
	t.Run("and the next works", func(t *testing.T) {
		start(t, "three", taker, nil)
		if err := one.ended(t); err != nil {
			t.Error(err)
		}
		wantAnswer(t, path, "three")
	})
}

func TestTakeOverOfNobodyJustStarts(t *testing.T) {
	cfg := setup(t, "workload")
	cfg.TakeOver = true
	start(t, "one", cfg, nil)
	wantAnswer(t, cfg.Specs[0].Path, "one")
}

// The configurations may differ: sockets that are new are bound, those not wanted
// any more are gone.
func TestTakeOverWithOtherSockets(t *testing.T) {
	cfg := setup(t, "workload", "old")
	start(t, "one", cfg, nil)
	next := cfg
	next.TakeOver = true
	next.Specs = []Spec{cfg.Specs[0], {Name: "new", Path: filepath.Join(cfg.DataDir, "new.sock"), Mode: 0o600, UID: -1, GID: -1}}
	start(t, "two", next, nil)
	wantAnswer(t, next.Specs[0].Path, "two")
	wantAnswer(t, next.Specs[1].Path, "two")
	eventually(t, "the old file is removed", func() bool {
		_, err := os.Lstat(cfg.Specs[1].Path)
		return errors.Is(err, os.ErrNotExist)
	})
}

// A file that was bind-mounted, and removed on the host, is served by the next
// agent too.
func TestTakeOverServesFormerFiles(t *testing.T) {
	cfg := setup(t, "workload")
	path, mounted := cfg.Specs[0].Path, filepath.Join(cfg.DataDir, "mounted")
	one := start(t, "one", cfg, nil)
	if err := errors.Join(os.Link(path, mounted), os.Remove(path)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "bound anew", func() bool { return len(one.set.sockets["workload"].all()) == 2 })
	cfg.TakeOver = true
	start(t, "two", cfg, nil)
	wantAnswer(t, path, "two")
	wantAnswer(t, mounted, "two")
}

// Who speaks something else, or says nothing, keeps nobody else from taking over.
func TestHandOverRefusesStrangers(t *testing.T) {
	cfg := setup(t, "workload")
	one := start(t, "one", cfg, nil)
	for _, say := range []string{`{"type":"hello","version":99}`, `{"type":"take"}`, "nonsense", strings.Repeat("x", 2*maxMessage), ""} {
		conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: filepath.Join(cfg.DataDir, handOverFile), Net: "unixpacket"})
		if err != nil {
			t.Fatal(err)
		}
		if say != "" {
			if _, err := conn.Write([]byte(say)); err != nil {
				t.Fatal(err)
			}
			if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, maxMessage)
			n, err := conn.Read(buf)
			if refused := strings.Contains(string(buf[:n]), msgRefused); err == nil && !refused {
				t.Errorf("%.40q was answered: %s", say, buf[:n])
			}
		}
		conn.Close()
	}
	wantAnswer(t, cfg.Specs[0].Path, "one")
	cfg.TakeOver = true
	start(t, "two", cfg, nil)
	if err := one.ended(t); err != nil {
		t.Error(err)
	}
}

// A service would be started again and find the lock taken; its manager keeps its
// sockets over a restart anyhow.
func TestTakeOverOfAServiceIsRefused(t *testing.T) {
	cfg := setup(t, "workload")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(cfg.DataDir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", manager.LocalAddr().String())
	start(t, "one", cfg, nil)
	cfg.TakeOver = true
	t.Setenv("NOTIFY_SOCKET", "")
	if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "systemctl restart") {
		t.Errorf("error %v", err)
	}
	wantAnswer(t, cfg.Specs[0].Path, "one")
	t.Setenv("NOTIFY_SOCKET", manager.LocalAddr().String())
	start(t, "two", cfg, nil)
	wantAnswer(t, cfg.Specs[0].Path, "two")
}

func FuzzMessage(f *testing.F) {
	for _, seed := range []string{`{"type":"hello","version":1,"pid":7}`, `{"type":"socket","name":"a","path":"/p","dev":1,"ino":2}`, `{"type":"take","names":["a"]}`, `{"type":"refused","reason":"no"}`, "{}", "null", "["} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	f.Fuzz(func(t *testing.T, data []byte, withFile bool) {
		m, err := parseMessage(data, withFile, []string{msgSocket, msgHello})
		switch {
		case err != nil && strings.Contains(err.Error(), "\n"):
			t.Errorf("error of several lines: %v", err)
		case err == nil && withFile != (m.Type == msgSocket):
			t.Errorf("%q with a file: %v", m.Type, withFile)
		}
	})
}
