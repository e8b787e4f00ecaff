package store

import (
	"context"
	"fmt"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

// templateSet is the ID templates as of a revision. It is never modified.
type templateSet struct {
	seen Revision
	// by has what is reserved, by its prefix. Different templates share none.
	by map[string]reservation
}

type reservation struct {
	template registration.Template
	holder   string // an entry that has it
}

// clash returns what the SPIFFE ID of e, which has no template, lies within.
func (ts *templateSet) clash(e registration.Entry) (reservation, bool) {
	if len(ts.by) == 0 {
		return reservation{}, false
	}
	path := e.SPIFFEID.Path()
	for path != "" {
		if r, ok := ts.by[path]; ok {
			return r, true
		}
		path = path[:strings.LastIndexByte(path, '/')]
	}
	return reservation{}, false
}

// templates returns the templates that the store knew last; fresh reads them.
// Others can only have more since, which [txn.templatesUnchanged] finds out.
func (s *Store) templates(ctx context.Context, fresh bool) (*templateSet, error) {
	if ts := s.templateSet.Load(); ts != nil && !fresh {
		return ts, nil
	}
	resp, err := s.client.Get(ctx, templateDir, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return nil, err
	}
	ts := &templateSet{seen: Revision(resp.Header.Revision), by: make(map[string]reservation, len(resp.Kvs))}
	for _, kv := range resp.Kvs {
		path, id, _ := cutLast(strings.TrimPrefix(string(kv.Key), templateDir), "#")
		t, err := registration.ParseTemplate(s.cfg.TrustDomain, path)
		if err != nil {
			s.cfg.Log.Error("an ID template cannot be read and reserves nothing", "key", string(kv.Key), "error", err)
			continue
		}
		ts.by[t.Prefix()] = reservation{template: t, holder: id}
	}
	s.templateSet.Store(ts)
	return ts, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// templatesUnchanged demands that no template has been added since ts was read.
func (t *txn) templatesUnchanged(ts *templateSet) {
	t.conds = append(t.conds, clientv3.Compare(clientv3.ModRevision(templateDir).WithPrefix(), "<", int64(ts.seen)+1))
}

// allow returns nil, and adds to t what keeps it so until t is committed, if no
// template reserves the SPIFFE ID of e. The error wraps ErrReserved. An entry
// with a template is checked against all others, by [Store.allowTemplate].
func (s *Store) allow(ctx context.Context, t *txn, e registration.Entry) error {
	ts, err := s.templates(ctx, false)
	if err != nil {
		return err
	}
	if _, clashes := ts.clash(e); clashes {
		// It may have gone meanwhile.
		if ts, err = s.templates(ctx, true); err != nil {
			return err
		}
	}
	if r, clashes := ts.clash(e); clashes {
		return r.refuse(e)
	}
	t.templatesUnchanged(ts)
	return nil
}

func (r reservation) refuse(e registration.Entry) error {
	return fmt.Errorf("%s: %w for the ID template %s of entry %s: choose an ID that is not at or below %s",
		e.Name(), ErrReserved, r.template, r.holder, r.template.Prefix())
}

// allowTemplate returns nil, and adds to t what keeps it so until t is
// committed, if the template of e reserves nothing that other entries have. The
// caller holds s.entries for writing, or it might try again for ever.
func (s *Store) allowTemplate(ctx context.Context, t *txn, e registration.Entry) error {
	taken, seen, err := s.entriesWhere(ctx, func(other registration.Entry) bool { return other.ID != e.ID && e.Clash(other) })
	if err != nil {
		return err
	}
	if len(taken) > 0 {
		return fmt.Errorf("ID template %s: %w: its prefix %s is for it alone, but entry %s has %s",
			e.Template, ErrReserved, e.Template.Prefix(), taken[0].ID, taken[0].Name())
	}
	t.entriesUnchanged(seen)
	return nil
}

// templateKey marks that entry e has its template, for as long as it has it.
func templateKey(e registration.Entry) string { return templateDir + e.Template.Path() + "#" + e.ID }
