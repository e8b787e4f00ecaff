package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/schema"

	"github.com/lanyard-mtls/lanyard/internal/durable"
)

const (
	// maxTxnOps is etcd's limit on operations in a transaction; it allows a
	// thousand entries with their derived keys in one.
	maxTxnOps = 4096
	// maxRequestBytes is etcd's limit on a whole transaction.
	maxRequestBytes = 8 << 20
	// quotaBytes is where etcd stops taking writes.
	quotaBytes = 8 << 30
	// keepHistory is how far back a watch can resume without a new Snapshot.
	keepHistory = "5m"
	// stopTimeout bounds the stop of an etcd that has failed: it may hold its
	// own locks for ever then.
	stopTimeout = 2 * time.Second
	// slowStart is when the log says what Open is waiting for.
	slowStart = 10 * time.Second

	// liveDir and freshDir are names in the store's directory: of the etcd, and
	// of one that is not finished and that nobody has seen.
	liveDir  = "etcd"
	freshDir = "etcd.new"
)

// etcdConfig is a lone member: both lists of listeners are nil, so there is no
// port and no socket. (An etcd unix:// URL would become an abstract socket,
// open to every user of the machine.)
func etcdConfig(dir string) *embed.Config {
	cfg := embed.NewConfig()
	cfg.Name = "issuer"
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.Dir = dir
	cfg.ListenPeerUrls = nil
	cfg.ListenClientUrls = nil
	cfg.EnableGRPCGateway = false

	// Nobody is far away: elect soon, but don't wake up for it too often.
	cfg.TickMs = 50
	cfg.ElectionMs = 250

	cfg.MaxTxnOps = maxTxnOps
	cfg.MaxRequestBytes = maxRequestBytes
	cfg.QuotaBackendBytes = quotaBytes
	cfg.AutoCompactionMode = embed.CompactorModePeriodic
	cfg.AutoCompactionRetention = keepHistory
	// The log in memory is for followers, of which there are none; batches make
	// its records large.
	cfg.SnapshotCount = 100
	cfg.SnapshotCatchUpEntries = 1 // 0 would be thousands
	cfg.BootstrapDefragThresholdMegabytes = 512
	// A batch of a thousand entries is meant to take longer than one key.
	cfg.WarningApplyDuration = time.Second
	cfg.WarningUnaryRequestDuration = 3 * time.Second
	return cfg
}

// start brings up the etcd in the store's directory.
func (s *Store) start(ctx context.Context) error {
	if err := s.bootstrap(ctx); err != nil {
		return err
	}
	if err := s.run(ctx, filepath.Join(s.cfg.Dir, liveDir)); err != nil {
		return err
	}
	s.client = newClient(s.etcd.Server, s.life, s.lost)
	return s.disarm(ctx)
}

// bootstrap makes the etcd of a new store. An etcd that is killed before its
// first write of itself is on disk never elects a leader again; so it is made
// under another name and gets its own when it has been ready once.
func (s *Store) bootstrap(ctx context.Context) error {
	live, fresh := filepath.Join(s.cfg.Dir, liveDir), filepath.Join(s.cfg.Dir, freshDir)
	if _, err := os.Stat(live); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.RemoveAll(fresh); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if err := s.run(ctx, fresh); err != nil {
		return err
	}
	if err := s.stop(); err != nil {
		return err
	}
	if s.life.Err() != nil {
		return context.Cause(s.life)
	}
	s.etcd = nil
	if err := syncTree(fresh); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if err := os.Rename(fresh, live); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return durable.SyncDir(s.cfg.Dir)
}

// run starts an etcd in dir and waits until it is ready.
func (s *Store) run(ctx context.Context, dir string) error {
	cfg := etcdConfig(dir)
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zapLogger(s.cfg.Log, s.hook))

	// On its own goroutine, because the fatal hook ends the one that called it.
	var err error
	started := make(chan struct{})
	go func() {
		defer close(started)
		// A log that is not etcd's has it dereference nil.
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("cannot read its log (%v)%w", r, errDamaged)
			}
		}()
		s.etcd, err = embed.StartEtcd(cfg)
	}()
	select {
	case <-started:
	case <-s.lost:
	}
	if s.life.Err() != nil {
		return context.Cause(s.life)
	}
	if err != nil {
		return withMend(fmt.Errorf("store: start etcd in %s: %w", dir, err))
	}
	return s.ready(ctx, dir)
}

// ready waits for an etcd that runs to lead itself.
func (s *Store) ready(ctx context.Context, dir string) error {
	slow := time.AfterFunc(slowStart, func() {
		s.cfg.Log.Warn("still waiting for etcd to read its log", "dir", dir)
	})
	defer slow.Stop()
	// What a lone member commits as the leader comes after all that its log has. Where the records know of more, the end of the
	// log is gone, and etcd would count up to there by failed attempts, one in five seconds.
	patience := cmp.Or(s.cfg.patience, slowStart)
	look := time.NewTicker(patience)
	defer look.Stop()
	for {
		select {
		case <-s.etcd.Server.ReadyNotify():
			return nil
		case <-look.C:
			known, _ := schema.ReadConsistentIndex(s.etcd.Server.Backend().ReadTx())
			if s.etcd.Server.Leader() != 0 && s.etcd.Server.CommittedIndex() < known {
				return errors.Join(fmt.Errorf("store: start etcd in %s: the end of its log is missing%w", dir, errDamaged), s.stop())
			}
		case <-s.life.Done():
			return errors.Join(context.Cause(s.life), s.stop())
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("store: start etcd: %w", context.Cause(ctx)), s.stop())
		}
	}
}

// disarm takes back the alarm that etcd raises when it reaches its quota, and
// keeps over restarts. Still over it, the next write raises it again.
func (s *Store) disarm(ctx context.Context) error {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return errors.Join(err, s.stop())
	}
	defer end()
	resp, err := s.client.AlarmList(ctx)
	if err != nil {
		return errors.Join(s.fault("start", err), s.stop())
	}
	if len(resp.Alarms) == 0 {
		return nil
	}
	s.cfg.Log.Warn("the store had reached its quota", "dir", s.cfg.Dir, "quota_bytes", int64(quotaBytes))
	if _, err := s.client.AlarmDisarm(ctx, &clientv3.AlarmMember{}); err != nil {
		return errors.Join(s.fault("start", err), s.stop())
	}
	return nil
}

// fail is called once, from the goroutine of etcd that cannot go on.
func (s *Store) fail(msg string, cause error) {
	err := fmt.Errorf("store: etcd in %s ended: %s", s.cfg.Dir, msg)
	if cause != nil {
		err = fmt.Errorf("store: etcd in %s ended: %s: %w", s.cfg.Dir, msg, cause)
	}
	err = withMend(err)
	s.kill(err)
	close(s.lost)
	s.done <- err
}

// errDamaged ends the error of an etcd whose files are not what it wrote.
var errDamaged = errors.New(": the files are damaged; restore a backup into a fresh data directory (lanyard issuer restore)")

// withMend says what to do about a full disk, and about a database that is none.
func withMend(err error) error {
	if strings.Contains(err.Error(), "failed to open database") {
		return fmt.Errorf("%w%w", err, errDamaged)
	}
	if !isDiskFull(err) {
		return err
	}
	return fmt.Errorf("%w; make space and start again, nothing that was acknowledged is lost", err)
}

// stop ends etcd. Where etcd has failed it may never end; it is left then.
func (s *Store) stop() error {
	s.hook.stopping.Store(true)
	defer s.hook.stopping.Store(false)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		if s.client != nil {
			s.client.Close()
		}
		if s.etcd != nil {
			s.etcd.Close()
		}
	}()
	if !s.hook.fired() {
		<-stopped
		return nil
	}
	select {
	case <-stopped:
	case <-time.After(stopTimeout):
	}
	return nil
}

// fault explains an error of etcd's client.
func (s *Store) fault(op string, err error) error {
	switch {
	case s.life.Err() != nil:
		return context.Cause(s.life)
	case errors.Is(err, rpctypes.ErrNoSpace):
		return fmt.Errorf("store: %s: over its quota of %d GiB: delete entries and restart the issuer", op, quotaBytes>>30)
	default:
		return fmt.Errorf("store: %s: %w", op, err)
	}
}

// syncTree makes the names below dir durable; etcd has seen to their content.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return durable.SyncDir(path)
	})
}
