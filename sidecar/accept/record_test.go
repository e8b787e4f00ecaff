package accept_test

import (
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar/accept"
	"github.com/lanyard-mtls/lanyard/sidecar/metrics"
)

// counted returns what a series of the metrics says.
func (r *rig) counted(series string) int {
	r.t.Helper()
	page := httptest.NewRecorder()
	r.metrics.Handlers()[metrics.PathPrometheus].ServeHTTP(page, httptest.NewRequest("GET", metrics.PathPrometheus, nil))
	n := 0
	for _, m := range regexp.MustCompile(`(?m)^lanyard_sidecar_`+series+`\{.*\} (\d+)$`).FindAllStringSubmatch(page.Body.String(), -1) {
		v, err := strconv.Atoi(m[1])
		if err != nil {
			r.t.Fatal(err)
		}
		n += v
	}
	return n
}

// However a connection ends, and however the sidecar does meanwhile, it leaves one record, one place and no count.
func TestEveryConnectionLeavesOneRecord(t *testing.T) {
	for round := range 5 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			r := start(t, accept.Settings{Limits: accept.Limits{Connections: 6, PerPeer: 3, Handshakes: 8}, ConnectTimeout: 300 * time.Millisecond,
				ShutdownTimeout: 50 * time.Millisecond, DrainIdle: 10 * time.Millisecond})
			var all sync.WaitGroup
			for i := range 60 {
				all.Go(func() {
					c, err := net.Dial("tcp", r.addr)
					if err != nil {
						return // it is over
					}
					defer c.Close()
					c.SetDeadline(time.Now().Add(limit))
					io.WriteString(c, []string{"h", "dx", "ax", "bx", "cx", ""}[i%6])
					switch i % 3 {
					case 0:
						c.(*net.TCPConn).SetLinger(0)
						io.ReadFull(c, make([]byte, 1))
					case 1:
						c.(*net.TCPConn).CloseWrite()
						io.ReadAll(c)
					default:
						io.ReadAll(c)
					}
				})
				if i == 10*round {
					all.Go(r.cancel)
				}
			}
			r.wait()
			all.Wait()
			accepted := r.counted("accepted_connections_total")
			if n := len(r.causes(0)); n != accepted {
				t.Errorf("%d records of %d connections", n, accepted)
			}
			if n := r.counted("connections_total"); n != accepted {
				t.Errorf("%d of %d connections are counted as ended", n, accepted)
			}
			if r.counted("open_connections") != 0 || r.loop.Open() != 0 || r.loop.Handshakes() != 0 || r.loop.Waiting() != 0 {
				t.Errorf("counted as open: %d, places: %d, handshakes: %d, waiting: %d", r.counted("open_connections"), r.loop.Open(), r.loop.Handshakes(), r.loop.Waiting())
			}
		})
	}
}
