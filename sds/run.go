package sds

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/lanyard-mtls/lanyard/internal/unixsock"
	"github.com/lanyard-mtls/lanyard/internal/workload"
)

// Config is that of the standalone server, a bridge from any Workload API to
// SDS. It hands out the SVIDs and private keys that the Workload API gives to
// this process: whoever may connect has this process's identity.
type Config struct {
	// SocketPath is the UNIX socket to serve on, absolute. Missing parent
	// directories are made with mode 0755.
	SocketPath string
	// WorkloadAPIAddr is unix:///PATH or tcp://IP:PORT; empty means the value of
	// $SPIFFE_ENDPOINT_SOCKET.
	WorkloadAPIAddr string
	// AllowedUIDs are the users that may connect beside this process's own. Root
	// may only if it is either.
	AllowedUIDs []int
	// Options are the names of the secrets. Its Log is not used.
	Options Options
	// Log may be nil: nothing is logged then.
	Log *slog.Logger
	// Ready is called once, when the socket accepts connections, whether or not
	// the Workload API has answered yet: a stream waits for that. It may be nil.
	Ready func(net.Addr)
}

// Validate reports all that is wrong with the configuration, without I/O.
func (c Config) Validate() error {
	errs := []error{c.Options.Validate()}
	if !filepath.IsAbs(c.SocketPath) {
		errs = append(errs, fmt.Errorf("sds: socket path %q: give an absolute path", c.SocketPath))
	}
	addr, err := workload.ParseAddr(c.WorkloadAPIAddr)
	if err != nil {
		errs = append(errs, fmt.Errorf("sds: %w", err))
	}
	if addr.Network == "unix" && filepath.Clean(addr.Address) == filepath.Clean(c.SocketPath) {
		errs = append(errs, fmt.Errorf("sds: socket path %s is the Workload API's own: choose another one to serve on", c.SocketPath))
	}
	for _, uid := range c.AllowedUIDs {
		if uid < 0 {
			errs = append(errs, fmt.Errorf("sds: allowed uid %d: give a user ID of 0 or more", uid))
		}
	}
	return errors.Join(errs...)
}

// socketMode lets those connect whom the listener then accepts. connect(2) asks
// for write permission on the file, and a file has one owner: for other users it
// has to be open to all. It is the check of the peer's credentials that decides,
// made by the kernel at connect and asked before a byte is read; the mode only
// spares it the ones that never could be meant.
func (c Config) socketMode() fs.FileMode {
	if len(c.AllowedUIDs) == 0 {
		return 0o600
	}
	return 0o666
}

// Run serves until ctx is done, and returns nil then. It returns early only if
// the socket cannot be had: a Workload API that is away is asked again.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	client, err := workload.New(workload.Config{Addr: cfg.WorkloadAPIAddr, Log: log})
	if err != nil {
		return err
	}
	socket, err := unixsock.Listen(cfg.SocketPath, cfg.socketMode())
	if err != nil {
		return err
	}
	listener := newPeerListener(socket, cfg.AllowedUIDs, log)

	opts := cfg.Options
	opts.Log = log
	srv := newGRPCServer()
	Register(srv, &bridge{client: client}, opts)

	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	// The client first: the streams below wait for what it brings.
	running.Go(func() { _ = client.Run(ctx) })
	served := make(chan error, 1)
	running.Go(func() { served <- srv.Serve(listener) })
	log.Info("serving secrets", "socket", cfg.SocketPath, "workload_api", client.Addr().String(), "allowed_uids", listener.uids())
	if cfg.Ready != nil {
		cfg.Ready(socket.Addr())
	}
	select {
	case <-ctx.Done():
	case err = <-served:
	}
	// The streams first, which otherwise end only with their clients; with them
	// their watches of the client.
	srv.Stop()
	cancel()
	running.Wait()
	return err
}

func newGRPCServer() *grpc.Server {
	return grpc.NewServer(
		grpc.WaitForHandlers(true),
		// One for each secret of an Envoy.
		grpc.MaxConcurrentStreams(1000),
		// An Envoy lists its extensions in the first request of each stream, some
		// 60 KB, and may be given node metadata of any size.
		grpc.MaxRecvMsgSize(1<<20),
		grpc.MaxHeaderListSize(16<<10),
		// An Envoy may be told to ping; on a local socket that costs nothing.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
}

// bridge is the Source that a Workload API client is. Where Client.Watch ends at
// PermissionDenied, it goes on: the client hears first when that changes.
type bridge struct {
	client *workload.Client
	none   workload.X509Context // shown by all streams while denied
}

func (b *bridge) WatchX509Context(ctx context.Context, update func(*workload.X509Context) error) error {
	var shown *workload.X509Context
	for {
		state, changed := b.client.Observe()
		next := state.Context
		if next == nil && state.Denied() {
			next = &b.none
		}
		if next != nil && next != shown {
			if err := update(next); err != nil {
				return err
			}
			shown = next
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}
