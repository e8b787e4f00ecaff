package sidecar_test

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar"
)

// Reloads of all kinds, looks at the status, connections and the end may come at once.
func TestReloadsAndTheEndTogether(t *testing.T) {
	in, out := chain(t, backend(t, echo))
	unix := out
	unix.Name, unix.Listen = "unix", "unix:"+filepath.Join(socketDir(t), "s")
	narrow := in
	narrow.Limits.Connections, narrow.Policy.DenyURIs = 2, []string{"spiffe://one.test/other"}
	sets := [][]sidecar.Tunnel{{in, out}, {in, unix}, {narrow, out, unix}, {out}, {in, in}}
	for round := range 2 {
		m := startMany(t, sidecar.Config{Tunnels: sets[0], Status: sidecar.Status{Listen: "http://127.0.0.1:0"}, ShutdownTimeout: limit, DrainIdle: time.Millisecond})
		addr := m.status
		var all sync.WaitGroup
		over := make(chan struct{})
		again := func(f func(n int)) {
			all.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-over:
						return
					default:
						f(n)
					}
				}
			})
		}
		for range 2 {
			again(func(n int) {
				cfg := m.cfg
				cfg.Tunnels = sets[n%len(sets)]
				if err := m.sidecar.Reload(t.Context(), cfg); err != nil && n%len(sets) < 4 && !errors.Is(err, sidecar.ErrNotRunning) {
					t.Errorf("reload: %v", err)
				}
			})
		}
		again(func(int) { m.sidecar.ReloadFiles(t.Context()) })
		again(func(int) { m.sidecar.ReloadFailed(errors.New("told")) })
		again(func(int) { roundTrip(t, out.Listen, "x") })
		again(func(int) {
			if c, err := net.Dial("tcp", addr); err == nil {
				io.WriteString(c, "GET /_status HTTP/1.0\r\n\r\n")
				io.Copy(io.Discard, c)
				c.Close()
			}
		})
		m.log.connections(10)
		if round%2 == 0 {
			m.sidecar.Shutdown()
		} else {
			m.cancel()
		}
		if err := m.wait(t); err != nil {
			t.Error(err)
		}
		close(over)
		all.Wait()
	}
}
