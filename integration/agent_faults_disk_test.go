package integration

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// TestFaultsAgentsDiskIsFull fills the agent's disk: it tells so, and serves new workloads nevertheless. Once there is space,
// what it knows is on disk again.
func TestFaultsAgentsDiskIsFull(t *testing.T) {
	t.Parallel()
	r := newStoppedFaults(t, harness.IssuerSpec{}, "1s")
	fill := r.smallDisk()
	r.agent.Start(r.issuer.Token(r.node))
	id, more, last := r.issuer.ID("/workload"), r.issuer.ID("/more"), r.issuer.ID("/last")
	r.create(id, "")
	svid := r.stream.has(id).DefaultSVID()
	filler := fill()
	r.create(more, "")
	r.stream.has(id, more)
	r.says("no space left on device")
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	r.create(last, "")
	r.stream.has(id, more, last)
	if err := r.agent.Process.Stop(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	r.issuer.Process.Kill()
	r.agent.Launch("")
	r.serves(fetchLimit, id, svid)
	if got, err := r.stream.fetch(t.Context()); err != nil || len(got.SVIDs) != 3 {
		t.Errorf("of three SVIDs were kept: %v, %v", got, err)
	}
}

// diskLife is the life of an agent's SVID that is to end on a full disk.
const diskLife = 6 * time.Second

// TestFaultsAgentOutlivesItsSVIDOnAFullDisk keeps the disk full for longer than the agent's own SVID lives: the agent must
// not lose its place for want of a file, which with a join token would be for good. Once there is space, it can be killed.
func TestFaultsAgentOutlivesItsSVIDOnAFullDisk(t *testing.T) {
	t.Parallel()
	r := newStoppedFaults(t, harness.IssuerSpec{Server: "\nagent_ttl = \"" + diskLife.String() + "\""}, "1s")
	fill := r.smallDisk()
	r.agent.Start(r.issuer.Token(r.node))
	id, later, last := r.issuer.ID("/workload"), r.issuer.ID("/later"), r.issuer.ID("/last")
	r.create(id, "")
	r.stream.has(id)
	filler, full := fill(), time.Now()
	r.says("the agent's own SVID or its key cannot be written")
	wait(t.Context(), time.Until(full.Add(diskLife)))
	r.create(later, "")
	r.stream.has(id, later)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	r.says("the agent's own SVID and its key are on disk again")
	r.agent.Process.Kill()
	r.agent.Launch("")
	r.create(last, "")
	r.stream.has(id, later, last)
}

// smallDisk gives the agent a disk of its own, which the function it returns fills with a file of that name.
func (r *faults) smallDisk() (fillIt func() string) {
	r.t.Helper()
	if err := os.MkdirAll(r.agent.Data, 0o700); err != nil {
		r.t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", r.agent.Data, "tmpfs", 0, "size=256k,mode=0700"); err != nil {
		r.t.Skipf("no tmpfs can be mounted: %v", err)
	}
	r.t.Cleanup(func() { _ = unix.Unmount(r.agent.Data, unix.MNT_DETACH) })
	return func() string {
		r.t.Helper()
		name := filepath.Join(r.agent.Data, "filler")
		if err := fill(name); err != nil {
			r.t.Fatal(err)
		}
		return name
	}
}

// says waits until the agent has logged the words.
func (r *faults) says(words string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), fetchLimit)
	defer cancel()
	if _, err := r.agent.Process.WaitFor(ctx, words); err != nil {
		r.t.Fatal(err)
	}
}

// fill takes all the space that there is.
func fill(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	for {
		if _, err := file.Write(make([]byte, 4096)); errors.Is(err, unix.ENOSPC) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// TestFaultsAgentsStateIsDamaged damages each file of the agent's state in its turn, in three ways. Either the agent serves
// nevertheless, the right identity, or it ends with an error that names the file.
func TestFaultsAgentsStateIsDamaged(t *testing.T) {
	t.Parallel()
	r := newFaults(t, harness.IssuerSpec{}, "1s")
	id := r.issuer.ID("/workload")
	r.create(id, "")
	r.stream.has(id)
	if err := r.agent.Process.Stop(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	good := readDir(t, r.agent.Data)
	if len(good) < 3 {
		t.Fatalf("state of the agent: %d files", len(good))
	}
	for name, text := range good {
		if len(text) == 0 {
			continue // a lock
		}
		for how, damaged := range map[string][]byte{"empty": nil, "cut": text[:len(text)/2], "other": []byte(strings.Repeat("garbage", 20))} {
			restore(t, r.agent.Data, good)
			if err := os.WriteFile(filepath.Join(r.agent.Data, name), damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			outcome := r.startDamaged(name, id)
			t.Logf("%s, %s: %s", name, how, outcome)
		}
	}
	restore(t, r.agent.Data, good)
	r.agent.Start("")
	r.serves(fetchLimit, id, nil)
}

// startDamaged starts the agent and tells what became of it.
func (r *faults) startDamaged(name, id string) string {
	r.t.Helper()
	process := r.agent.Launch("")
	ended := errors.New("ended")
	err := harness.Until(r.t.Context(), fetchLimit, "to serve or to end", func(ctx context.Context) error {
		if !process.Running() {
			return nil
		}
		_, err := r.stream.fetch(ctx)
		return err
	})
	switch {
	case err != nil:
		r.t.Errorf("%s: neither serves nor ends: %v; it said:\n%s", name, err, process.Log.Tail(10))
	case !process.Running():
		err = ended
	}
	said := process.Log.Tail(1 << 10)
	if errors.Is(err, ended) {
		if process.Wait() == nil || !strings.Contains(said, name) {
			r.t.Errorf("%s is damaged, and the agent ended without naming it: %v\n%s", name, process.Wait(), said)
		}
		return "refused:\n" + process.Log.Tail(3)
	}
	r.serves(fetchLimit, id, nil)
	process.Kill()
	return "served"
}

func readDir(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if !entry.Type().IsRegular() {
			continue
		}
		if files[entry.Name()], err = os.ReadFile(filepath.Join(dir, entry.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func restore(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
