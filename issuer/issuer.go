// Package issuer owns the composition of the issuer: which parts there are, in
// which order they start and stop. What they do is theirs: records in
// issuer/store, the index over them in issuer/registry, keys and signatures in
// issuer/ca, admission in issuer/enroll, the API in issuer/serverapi.
package issuer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/lanyard-mtls/lanyard/internal/durable"
	"github.com/lanyard-mtls/lanyard/internal/unixsock"
	"github.com/lanyard-mtls/lanyard/issuer/ca"
	"github.com/lanyard-mtls/lanyard/issuer/enroll"
	"github.com/lanyard-mtls/lanyard/issuer/registry"
	"github.com/lanyard-mtls/lanyard/issuer/serverapi"
	"github.com/lanyard-mtls/lanyard/issuer/store"
)

// Run runs an issuer until ctx is done, and returns nil then; or until a part
// of it fails, and returns why. Calls in progress get 10 s to end.
//
// The order is that of need. The data directory is locked before anything in it
// is read. Both listeners are bound before anything is written, so that a port
// in use leaves no trace; who connects waits until they serve. Records come
// before the index over them, and that before the authorities, which publish
// through both. The first authority exists before anyone can ask for a bundle,
// so no bundle is ever empty. Stopping is the reverse.
func Run(ctx context.Context, cfg Config) (err error) {
	if err := cfg.Validate(); err != nil {
		return err
	}
	cfg = cfg.withDefaults()
	if err := durable.MkdirPrivate(cfg.DataDir); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	unlock, err := durable.Lock(cfg.lockFile())
	if err != nil {
		return fmt.Errorf("data directory %s: %w", cfg.DataDir, err)
	}
	defer func() { err = errors.Join(err, unlock()) }()

	// Read early: a corrupt key file ends the start with nothing else touched.
	keys, err := ca.OpenKeys(cfg.keyFile())
	if err != nil {
		return err
	}
	tcp, local, err := listen(ctx, cfg)
	if err != nil {
		return err
	}
	// Once they serve, the servers close them, and this does nothing.
	defer tcp.Close()
	defer local.Close()
	st, err := store.Open(ctx, store.Config{Dir: cfg.storeDir(), TrustDomain: cfg.TrustDomain, Log: cfg.Log})
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	return runOn(ctx, cfg, listeners{tcp, local}, st, keys)
}

// runOn runs what is above the store. The parts below the listeners outlive
// ctx, so that calls in progress can end.
func runOn(ctx context.Context, cfg Config, on listeners, st *store.Store, keys ca.Keys) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	fail := func(err error) { cancel(&partError{err}) }
	below := newGroup(context.WithoutCancel(ctx), fail)
	defer below.stop()
	below.watch(st.Done())

	reg := registry.New(st, cfg.Log)
	below.run("registry", reg.Run)
	select {
	case <-reg.Ready():
	case <-ctx.Done():
		return outcome(ctx)
	}
	authority := ca.New(ca.Config{
		TrustDomain: cfg.TrustDomain,
		Keys:        keys,
		Journal:     journal{store: st, registry: reg},
		TTL:         cfg.CATTL,
		X509SVIDTTL: cfg.DefaultX509SVIDTTL,
		AgentTTL:    cfg.AgentTTL,
		Subject:     cfg.CASubject,
		Log:         cfg.Log,
	})
	if err := authority.Load(ctx); err != nil {
		if ctx.Err() != nil {
			return outcome(ctx)
		}
		return err
	}
	below.run("authority", authority.Run)
	server := serverapi.New(serverapi.Deps{
		TrustDomain: cfg.TrustDomain,
		Store:       st,
		Registry:    reg,
		CA:          authority,
		Enroll:      enroll.New(enroll.Config{TrustDomain: cfg.TrustDomain, Store: st, Registry: reg, CA: authority}),
		AdminIDs:    cfg.AdminIDs,
		Log:         cfg.Log,
	})
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(ctx, on.tcp, on.local); err != nil {
			fail(err)
		}
	})
	// What is bound queues connections: to serve is a matter of scheduling now.
	cfg.Ready(Addrs{TCP: on.tcp.Addr(), Socket: cfg.SocketPath})
	<-ctx.Done()
	serving.Wait()
	return outcome(ctx)
}

// partError is the cause of the end of a context that a part ended by failing.
type partError struct{ err error }

func (e *partError) Error() string { return e.err.Error() }

// outcome is nil if ctx was ended from outside, and else why a part failed.
func outcome(ctx context.Context) error {
	if failed, ok := errors.AsType[*partError](context.Cause(ctx)); ok {
		return failed.err
	}
	return nil
}

// journal makes the store a ca.Journal: what is written is in the registry, from
// which clients and handshakes are answered, before anything is signed with it.
type journal struct {
	store    *store.Store
	registry *registry.Registry
}

func (j journal) UpdateCA(ctx context.Context, change func(*store.CAState) error) (store.Revision, error) {
	rev, err := j.store.UpdateCA(ctx, change)
	if err != nil {
		return rev, err
	}
	return rev, j.registry.Wait(ctx, rev)
}

// listeners are bound: connections queue up on them.
type listeners struct{ tcp, local net.Listener }

// listen binds both listeners or none.
func listen(ctx context.Context, cfg Config) (tcp, local net.Listener, err error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // kernel paths that later parts use refuse MPTCP
	tcp, err = lc.Listen(ctx, "tcp", cfg.address())
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, nil, fmt.Errorf("%s is in use by another process: stop that process or set another bind_port", cfg.address())
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, nil, fmt.Errorf("%s is not an address of this machine: set another bind_address", cfg.BindAddress)
	case err != nil:
		return nil, nil, fmt.Errorf("listen on %s: %w", cfg.address(), err)
	}
	local, err = listenLocal(cfg.SocketPath)
	if err != nil {
		return nil, nil, errors.Join(err, tcp.Close())
	}
	return tcp, local, nil
}

// listenLocal binds the admin socket for this user alone. A directory that is
// missing is made as private as the socket; one that is there is its owner's.
func listenLocal(path string) (net.Listener, error) {
	dir := filepath.Dir(path)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := durable.MkdirPrivate(dir); err != nil {
			return nil, fmt.Errorf("directory of the admin socket: %w", err)
		}
	}
	return unixsock.Listen(path, 0o600)
}
