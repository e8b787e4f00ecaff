package issuercli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// maxData bounds a file of entries, in bytes: about 500,000 of them.
const maxData = 256 << 20

// entriesJSON is the file format of entry create and update -data, which SPIRE shares.
type entriesJSON struct {
	Entries []entryJSON `json:"entries"`
}

type entryJSON struct {
	EntryID       string `json:"entry_id"`
	SPIFFEID      string `json:"spiffe_id"`
	ParentID      string `json:"parent_id"`
	Selectors     []selectorJSON
	X509SVIDTTL   int32    `json:"x509_svid_ttl"`
	JWTSVIDTTL    int32    `json:"jwt_svid_ttl"`
	FederatesWith []string `json:"federates_with"`
	DNSNames      []string `json:"dns_names"`
	Admin         bool
	Downstream    bool
	StoreSVID     bool `json:"store_svid"`
	Hint          string
	EntryExpiry   int64 `json:"entryExpiry"`
	Attributes    *struct {
		NoPrefetch bool `json:"disable_x509_svid_prefetch"`
		IncludeJTI bool `json:"jwt_svid_include_jti"`
	} `json:"additional_attributes"`
	// What the issuer sets: taken, as SPIRE does, and not used.
	Revision  int64 `json:"revision_number"`
	CreatedAt int64 `json:"created_at"`
}

type selectorJSON struct{ Type, Value string }

// readData reads a file, or standard input for "-".
func readData(stdin io.Reader, path string) ([]byte, error) {
	r := stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r = f
	}
	data, err := io.ReadAll(io.LimitReader(r, maxData+1))
	if err == nil && len(data) > maxData {
		err = fmt.Errorf("%s has more than %d MiB: split it", path, maxData>>20)
	}
	return data, err
}

// inputName names a file for messages.
func inputName(path string) string {
	if path == "-" {
		return "standard input"
	}
	return path
}

// decodeJSON reads strictly: an unknown key, or something after the end, is an error.
func decodeJSON(name string, data []byte, target any) error {
	name = inputName(name)
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(target); err != nil {
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			return fmt.Errorf("%s:%d: %w", name, 1+bytes.Count(data[:min(int64(len(data)), syntax.Offset)], []byte("\n")), err)
		}
		return fmt.Errorf("%s: %w", name, err)
	}
	if d.More() {
		return fmt.Errorf("%s: more follows after the end of the JSON object", name)
	}
	return nil
}

// parseEntries reads the entries in a -data file. Every faulty one is named.
func parseEntries(name string, data []byte) ([]*types.Entry, error) {
	var file entriesJSON
	if err := decodeJSON(name, data, &file); err != nil {
		return nil, err
	}
	var entries []*types.Entry
	var errs []error
	for i, e := range file.Entries {
		entry, err := e.proto()
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: entry %d: %w", name, i+1, err))
			continue
		}
		entries = append(entries, entry)
	}
	if len(file.Entries) == 0 {
		errs = append(errs, fmt.Errorf(`%s holds no entries: want {"entries": [{"spiffe_id": …}]}`, name))
	}
	return entries, errors.Join(errs...)
}

func (e entryJSON) proto() (*types.Entry, error) {
	id, idErr := spiffeid.FromString(e.SPIFFEID)
	if idErr != nil {
		idErr = fmt.Errorf("spiffe_id %q: %w", e.SPIFFEID, idErr)
	}
	parent, parentErr := spiffeid.FromString(e.ParentID)
	if parentErr != nil {
		parentErr = fmt.Errorf("parent_id %q: %w", e.ParentID, parentErr)
	}
	var federates []string
	var fedErr error
	for _, name := range e.FederatesWith {
		td, err := spiffeid.TrustDomainFromString(name)
		if err != nil {
			fedErr = errors.Join(fedErr, fmt.Errorf("federates_with %q: %w", name, err))
		}
		federates = append(federates, td.Name())
	}
	if err := oneLine(idErr, parentErr, fedErr); err != nil {
		return nil, err
	}
	entry := &types.Entry{
		Id: e.EntryID, SpiffeId: registration.IDProto(id), ParentId: registration.IDProto(parent),
		X509SvidTtl: e.X509SVIDTTL, JwtSvidTtl: e.JWTSVIDTTL, FederatesWith: federates, DnsNames: e.DNSNames,
		Admin: e.Admin, Downstream: e.Downstream, StoreSvid: e.StoreSVID, Hint: e.Hint, ExpiresAt: e.EntryExpiry,
	}
	for _, s := range e.Selectors {
		entry.Selectors = append(entry.Selectors, &types.Selector{Type: s.Type, Value: s.Value})
	}
	if e.Attributes != nil {
		entry.AdditionalAttributes = &types.Entry_AdditionalAttributes{DisableX509SvidPrefetch: e.Attributes.NoPrefetch, JwtSvidIncludeJti: e.Attributes.IncludeJTI}
	}
	return entry, nil
}

// oneLine joins errors about one thing.
func oneLine(errs ...error) error {
	err := errors.Join(errs...)
	if err == nil {
		return nil
	}
	return errors.New(strings.ReplaceAll(err.Error(), "\n", "; "))
}
