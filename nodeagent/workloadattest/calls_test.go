package workloadattest

import (
	"context"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	rpcstatus "google.golang.org/grpc/status"
)

// A connection has room for a thousand streams: nobody may take the agent's memory
// by holding as many on each of as many connections as one may have.
func TestOneUserCannotHoldAllCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimits(nil)
		call := func(uid uint32) (end func(), err error) {
			ctx, cancel := context.WithCancel(context.Background())
			ctx = peer.NewContext(ctx, &peer.Peer{AuthInfo: &Caller{uid: uid, pin: &pin{pid: 7}}})
			_, err = l.Tap(ctx, nil)
			return cancel, err
		}
		fill := func(uid uint32) (ends []func()) {
			for {
				end, err := call(uid)
				if err != nil {
					end()
					if code := rpcstatus.Code(err); code != codes.ResourceExhausted {
						t.Fatalf("refused with %v: %v", code, err)
					}
					return ends
				}
				ends = append(ends, end)
			}
		}
		ends := fill(1000)
		if len(ends) != maxCallsPerUser {
			t.Errorf("one user has %d calls", len(ends))
		}
		for uid := uint32(1001); uid <= 1004; uid++ {
			ends = append(ends, fill(uid)...)
		}
		if len(ends) != maxCalls {
			t.Errorf("all users have %d calls", len(ends))
		}
		for range maxCallsPerUser + 1 {
			end, err := call(0)
			defer end()
			if err != nil {
				t.Fatal("root:", err)
			}
		}
		for _, end := range ends {
			end()
		}
		synctest.Wait()
		if l.allCalls != 0 || len(l.calls) != 0 {
			t.Errorf("%d calls are counted after all have ended, of %d users", l.allCalls, len(l.calls))
		}
	})
}

func TestCallWithoutCallerIsRefused(t *testing.T) {
	if _, err := NewLimits(nil).Tap(t.Context(), nil); rpcstatus.Code(err) != codes.Internal {
		t.Errorf("error %v", err)
	}
}
