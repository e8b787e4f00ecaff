package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Run names one run of an issuer over its store, at random: from Open to Close.
// With a revision it names a point in the history that others may have been told
// of: another store has no such run, and one that was put back to an earlier
// state, be it by copying files, has not reached that revision within it.
type Run [8]byte

// maxRuns bounds how many runs are remembered. What was told in an older one is
// told again as a whole.
const maxRuns = 32

// pastRun is a run and the revision that it began after.
type pastRun struct {
	run   Run
	after Revision
}

// Run names this run.
func (s *Store) Run() Run { return s.runs[len(s.runs)-1].run }

// Had reports whether this store was at the revision in that run, so that what
// was told then is part of its history. Of this run it has only seen the start:
// how far it has come is for the reader to say.
func (s *Store) Had(run Run, rev Revision) bool {
	for i, r := range s.runs {
		if r.run == run {
			return rev >= r.after && (i+1 == len(s.runs) || rev <= s.runs[i+1].after)
		}
	}
	return false
}

// beginRun adds this run to those on record. A store that takes no writes works
// without: what is told in this run then is not known of in the next.
func (s *Store) beginRun(ctx context.Context) error {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	resp, err := s.client.Get(ctx, runsKey)
	if err != nil {
		return s.fault("open", err)
	}
	kv := first(resp.Kvs)
	var runs []pastRun
	if kv != nil {
		runs, err = parseRuns(string(kv.Value))
		if err != nil {
			s.cfg.Log.Warn("the record of former runs cannot be read and is made anew", "key", runsKey, "error", err)
		}
	}
	runs = append(runs[max(0, len(runs)-maxRuns+1):], pastRun{after: Revision(resp.Header.Revision)})
	if _, err := rand.Read(runs[len(runs)-1].run[:]); err != nil {
		return fmt.Errorf("store: open: %w", err)
	}
	s.runs = runs
	var t txn
	t.unchanged(runsKey, modRevision(kv))
	t.then = append(t.then, clientv3.OpPut(runsKey, formatRuns(runs)))
	if _, err := t.commit(ctx, s); err != nil {
		if s.life.Err() != nil || ctx.Err() != nil {
			return s.fault("open", err)
		}
		s.cfg.Log.Warn("this run is not recorded: agents are told everything again after the next start", "error", s.fault("open", err))
	}
	return nil
}

func formatRuns(runs []pastRun) string {
	var b strings.Builder
	for _, r := range runs {
		fmt.Fprintf(&b, "%x %d\n", r.run, r.after)
	}
	return b.String()
}

// parseRuns reads what formatRuns wrote.
func parseRuns(text string) ([]pastRun, error) {
	var runs []pastRun
	for line := range strings.Lines(text) {
		name, after, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		var r pastRun
		n, err := strconv.ParseInt(after, 10, 64)
		if err != nil || n < 0 || len(name) != hex.EncodedLen(len(r.run)) {
			return nil, fmt.Errorf("line %.64q is not a run and a revision", line)
		}
		if _, err := hex.Decode(r.run[:], []byte(name)); err != nil {
			return nil, fmt.Errorf("line %.64q: %w", line, err)
		}
		if len(runs) > 0 && Revision(n) <= runs[len(runs)-1].after {
			return nil, fmt.Errorf("line %.64q is out of order", line)
		}
		r.after = Revision(n)
		runs = append(runs, r)
	}
	return runs, nil
}
