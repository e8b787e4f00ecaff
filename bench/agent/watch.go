package main

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// dial opens no connection yet.
func dial(socket string) (*grpc.ClientConn, error) {
	return grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// fetch opens a stream; the caller has something to read once it returns.
func fetch(ctx context.Context, conn *grpc.ClientConn) (workload.SpiffeWorkloadAPI_FetchX509SVIDClient, *workload.X509SVIDResponse, error) {
	ctx = metadata.AppendToOutgoingContext(ctx, "workload.spiffe.io", "true")
	stream, err := workload.NewSpiffeWorkloadAPIClient(conn).FetchX509SVID(ctx, &workload.X509SVIDRequest{})
	if err != nil {
		return nil, nil, err
	}
	first, err := stream.Recv()
	return stream, first, err
}

// told is what the stream was given last.
type told struct {
	ids       map[string]bool
	bundle    []byte
	federated map[string][]byte
}

func (t told) has(path string) bool { return t.ids["spiffe://"+trustDomain+path] }

func (t told) trusts(der []byte) bool { return bytes.Contains(t.bundle, der) }

// watcher is a workload that waits on a stream.
type watcher struct {
	conn    *grpc.ClientConn
	stop    context.CancelFunc
	running sync.WaitGroup

	mu    sync.Mutex
	last  told
	wants map[*want]bool
	err   error
}

// want is something that is waited for.
type want struct {
	come func(told) bool
	at   chan time.Time // one, or closed when the stream has ended
}

// watch opens the stream, which the agent refuses as long as it knows of no entry for this process.
func watch(ctx context.Context, socket string) (*watcher, error) {
	conn, err := dial(socket)
	if err != nil {
		return nil, err
	}
	w := &watcher{conn: conn, wants: map[*want]bool{}}
	ctx, w.stop = context.WithCancel(ctx)
	for begin := time.Now(); ; {
		stream, first, err := fetch(ctx, conn)
		if err == nil {
			w.running.Go(func() { w.receive(stream, first) })
			return w, nil
		}
		if code := status.Code(err); code != codes.PermissionDenied && code != codes.Unavailable || time.Since(begin) > time.Minute {
			return nil, errors.Join(err, w.close())
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

func (w *watcher) receive(stream workload.SpiffeWorkloadAPI_FetchX509SVIDClient, resp *workload.X509SVIDResponse) {
	var err error
	for err == nil {
		at := time.Now()
		now := told{ids: map[string]bool{}, federated: resp.GetFederatedBundles()}
		for _, svid := range resp.GetSvids() {
			now.ids[svid.GetSpiffeId()] = true
			now.bundle = svid.GetBundle()
		}
		w.mu.Lock()
		w.last = now
		for one := range w.wants {
			if one.come(now) {
				one.at <- at
				delete(w.wants, one)
			}
		}
		w.mu.Unlock()
		resp, err = stream.Recv()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
	for one := range w.wants {
		close(one.at)
	}
	clear(w.wants)
}

// expect begins to wait. What has come already has come now.
func (w *watcher) expect(come func(told) bool) *want {
	one := &want{come, make(chan time.Time, 1)}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.err != nil:
		close(one.at)
	case come(w.last):
		one.at <- time.Now()
	default:
		w.wants[one] = true
	}
	return one
}

// wait returns when it came.
func (w *watcher) wait(ctx context.Context, one *want) (time.Time, error) {
	limit := time.NewTimer(2 * time.Minute)
	defer limit.Stop()
	select {
	case at, ok := <-one.at:
		if ok {
			return at, nil
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		return time.Time{}, w.err
	case <-limit.C:
		return time.Time{}, errors.New("a change has not come within two minutes")
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	}
}

func (w *watcher) close() error {
	w.stop()
	err := w.conn.Close()
	w.running.Wait()
	return err
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
