package entryfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/cli/suggest"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// entryJSON is an entry in the form that SPIRE shares; encoding/json takes the names in any case, as SPIRE does.
type entryJSON struct {
	EntryID       string         `json:"entry_id"`
	SPIFFEID      string         `json:"spiffe_id"`
	ParentID      string         `json:"parent_id"`
	Selectors     []selectorJSON `json:"selectors"`
	X509SVIDTTL   int32          `json:"x509_svid_ttl"`
	JWTSVIDTTL    int32          `json:"jwt_svid_ttl"`
	FederatesWith []string       `json:"federates_with"`
	DNSNames      []string       `json:"dns_names"`
	Admin         bool           `json:"admin"`
	Downstream    bool           `json:"downstream"`
	StoreSVID     bool           `json:"store_svid"`
	Hint          string         `json:"hint"`
	EntryExpiry   int64          `json:"entryExpiry"`
	Attributes    *struct {
		NoPrefetch bool `json:"disable_x509_svid_prefetch"`
		IncludeJTI bool `json:"jwt_svid_include_jti"`
	} `json:"additional_attributes"`
	// What the issuer sets: taken, as SPIRE does, and not used.
	Revision  int64 `json:"revision_number"`
	CreatedAt int64 `json:"created_at"`
}

type selectorJSON struct{ Type, Value string }

func jsonKeys() []string {
	return []string{
		"entry_id", "spiffe_id", "parent_id", "selectors", "x509_svid_ttl", "jwt_svid_ttl", "federates_with", "dns_names", "admin", "downstream",
		"store_svid", "hint", "entryExpiry", "additional_attributes", "revision_number", "created_at",
	}
}

// json reads {"entries": [{…}]}. The list is read item by item, for the line of each.
func (r *reader) json(data []byte) {
	line := lines(data)
	var whole json.RawMessage
	if err := json.Unmarshal(data, &whole); err != nil {
		at := int64(len(data))
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			at = syntax.Offset
		}
		r.errorf(line(at), "%v", err)
		return
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if err := r.jsonObject(d, line); err != nil {
		r.errorf(line(d.InputOffset()), "%v", err)
	}
}

func (r *reader) jsonObject(d *json.Decoder, line func(int64) int) error {
	if err := delim(d, '{'); err != nil {
		return err
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		if name, _ := key.(string); !strings.EqualFold(name, "entries") {
			r.unknownKey(line(d.InputOffset()), fmt.Sprintf("unknown key %q; did you mean %q?", name, "entries"))
			var skipped json.RawMessage
			if err := d.Decode(&skipped); err != nil {
				return err
			}
			continue
		}
		if err := delim(d, '['); err != nil {
			return err
		}
		for n := 1; d.More(); n++ {
			var raw json.RawMessage
			if err := d.Decode(&raw); err != nil {
				return err
			}
			r.jsonEntry(line(d.InputOffset()-int64(len(raw))), n, raw)
		}
		if err := delim(d, ']'); err != nil {
			return err
		}
	}
	return delim(d, '}')
}

func (r *reader) jsonEntry(line, n int, raw json.RawMessage) {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(raw, &keys); err != nil {
		r.errorf(line, "entry %d: want an object, {…}", n)
		return
	}
	clean := true
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if !slices.ContainsFunc(jsonKeys(), func(known string) bool { return strings.EqualFold(known, key) }) {
			clean = !r.unknownKey(line, fmt.Sprintf("entry %d: %s", n, suggest.Unknown("key", key, jsonKeys()))) && clean
		}
	}
	var e entryJSON
	if err := json.Unmarshal(raw, &e); err != nil {
		r.errorf(line, "entry %d: %s", n, jsonFault(err))
		return
	}
	entry, err := e.proto()
	if err != nil {
		r.errorf(line, "entry %d: %v", n, err)
		return
	}
	if clean {
		r.file.Entries = append(r.file.Entries, Declared{Line: line, Entry: entry})
	}
}

func (e entryJSON) proto() (*types.Entry, error) {
	var wrong []string
	id, err := ParseTemplate(e.SPIFFEID)
	if err != nil {
		wrong = append(wrong, fmt.Sprintf("spiffe_id %q: %v", e.SPIFFEID, err))
	}
	parent, err := ParseID(e.ParentID)
	if err != nil {
		wrong = append(wrong, fmt.Sprintf("parent_id %q: %v", e.ParentID, err))
	}
	var federates []string
	for _, name := range e.FederatesWith {
		td, err := spiffeid.TrustDomainFromString(name)
		if err != nil {
			wrong = append(wrong, fmt.Sprintf("federates_with %q: %v", name, err))
		}
		federates = append(federates, td.Name())
	}
	if len(wrong) > 0 {
		return nil, errors.New(strings.Join(wrong, "; "))
	}
	entry := &types.Entry{
		Id: e.EntryID, SpiffeId: id, ParentId: parent, X509SvidTtl: e.X509SVIDTTL, JwtSvidTtl: e.JWTSVIDTTL,
		FederatesWith: federates, DnsNames: e.DNSNames, Admin: e.Admin, Downstream: e.Downstream, StoreSvid: e.StoreSVID,
		Hint: e.Hint, ExpiresAt: e.EntryExpiry,
	}
	for _, s := range e.Selectors {
		entry.Selectors = append(entry.Selectors, &types.Selector{Type: s.Type, Value: s.Value})
	}
	if a := e.Attributes; a != nil {
		entry.AdditionalAttributes = &types.Entry_AdditionalAttributes{DisableX509SvidPrefetch: a.NoPrefetch, JwtSvidIncludeJti: a.IncludeJTI}
	}
	return entry, nil
}

func delim(d *json.Decoder, want json.Delim) error {
	got, err := d.Token()
	if err == nil && got != want {
		err = fmt.Errorf(`%v, where %q belongs: want {"entries": [{"spiffe_id": …}]}`, got, want.String())
	}
	return err
}

// jsonFault words an error of a value.
func jsonFault(err error) string {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Sprintf("%s: want a %s, got a %s", strings.TrimPrefix(wrong.Field, "."), wrong.Type, wrong.Value)
	}
	return err.Error()
}

// lines gives the line of an offset. Offsets must not go back.
func lines(data []byte) func(offset int64) int {
	at, line := int64(0), 1
	return func(offset int64) int {
		offset = min(max(offset, 0), int64(len(data)))
		if offset > at {
			line += bytes.Count(data[at:offset], []byte("\n"))
			at = offset
		}
		return line
	}
}
