package conformance

import (
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

func entryChecks() []Check {
	return []Check{
		{"entry/create", createEntry},
		{"entry/create similar", createSimilar},
		{"entry/create same ID", createSameID},
		{"entry/create refused", createRefused},
		{"entry/create with fields refused", createFieldsRefused},
		{"entry/DNS names", dnsNames},
		{"entry/federates with an unknown domain", federatesUnknown},
		{"entry/update", updateEntry},
		{"entry/update masked", updateMasked},
		{"entry/update refused", updateRefused},
		{"entry/update to be similar", updateSimilar},
		{"entry/delete", deleteEntry},
		{"entry/get", getEntryCheck},
		{"entry/masks", entryMasks},
	}
}

// getEntry is the entry as the server has it, nil if it has none.
func (c *C) getEntry(id string) *types.Entry {
	c.Helper()
	e, err := c.entries.GetEntry(c.ctx, &entryv1.GetEntryRequest{Id: id})
	if status.Code(err) == codes.NotFound {
		return nil
	}
	c.must(err)
	return e
}

func (c *C) create(mask *types.EntryMask, entries ...*types.Entry) []*entryv1.BatchCreateEntryResponse_Result {
	c.Helper()
	resp, err := c.entries.BatchCreateEntry(c.ctx, &entryv1.BatchCreateEntryRequest{Entries: entries, OutputMask: mask})
	c.must(err)
	if len(resp.Results) != len(entries) {
		c.Fatalf("%d results for %d entries", len(resp.Results), len(entries))
	}
	return resp.Results
}

// fullEntry has every field set.
func (c *C) fullEntry() *types.Entry {
	c.Helper()
	td := c.foreignDomain().TrustDomain
	c.federate(td)
	return &types.Entry{
		Id: c.unique("entry.with_ID"), SpiffeId: c.pid("/" + c.unique("full")), ParentId: c.pid("/spire/agent/join_token/x"),
		Selectors:   []*types.Selector{{Type: "unix", Value: "uid:1000"}, {Type: "unix", Value: "user:a:b"}},
		X509SvidTtl: 60, JwtSvidTtl: 30, FederatesWith: []string{td}, Admin: true, Downstream: true,
		ExpiresAt: time.Now().Add(time.Hour).Unix(), DnsNames: []string{"a.test", "b.test"}, StoreSvid: true, Hint: "internal",
		AdditionalAttributes: &types.Entry_AdditionalAttributes{JwtSvidIncludeJti: true},
	}
}

func createEntry(c *C) {
	full, begun := c.fullEntry(), time.Now().Unix()
	plain := c.child(c.pid("/node"))
	results := c.create(nil, full, plain)
	for i, want := range []*types.Entry{full, plain} {
		c.mustOK(results[i].Status)
		got := proto.Clone(results[i].Entry).(*types.Entry)
		if got.CreatedAt < begun || got.CreatedAt > time.Now().Unix()+1 { // SPIRE's database rounds
			c.Errorf("created at %d, want between %d and now", got.CreatedAt, begun)
		}
		if want.Id == "" && len(got.Id) != 36 {
			c.Errorf("ID %q, want a UUID", got.Id)
		}
		c.equal("stored", c.getEntry(got.Id), results[i].Entry)
		if want.Id == "" {
			got.Id = ""
		}
		got.CreatedAt = 0
		c.equal("created", got, want)
	}
	c.equal("results of nothing", len(c.create(nil)), 0)
}

// createSimilar wants the entry that is there already: controllers go on with it.
func createSimilar(c *C) {
	e := c.child(c.pid("/node"))
	e.Selectors = append(e.Selectors, &types.Selector{Type: "unix", Value: "uid:1"})
	first := c.entry(e)
	again := proto.Clone(e).(*types.Entry)
	again.Selectors[0], again.Selectors[1] = again.Selectors[1], again.Selectors[0]
	again.Hint, again.X509SvidTtl, again.Admin = "other", 77, true
	result := c.create(nil, again)[0]
	c.status(result.Status, codes.AlreadyExists, "similar entry already exists")
	c.equal("the existing entry", result.Entry, first)
	result = c.create(&types.EntryMask{Hint: true}, again)[0]
	c.status(result.Status, codes.AlreadyExists, "similar entry already exists")
	c.equal("the existing entry, masked", result.Entry, &types.Entry{Id: first.Id})
	more := proto.Clone(e).(*types.Entry)
	more.Selectors = append(more.Selectors, &types.Selector{Type: "unix", Value: "gid:1"})
	results := c.create(nil, more, more)
	c.ok(results[0].Status)
	c.status(results[1].Status, codes.AlreadyExists, "similar entry already exists")
	c.equal("the entry of the same batch", results[1].Entry, results[0].Entry)
}

func createSameID(c *C) {
	e, other := c.child(c.pid("/node")), c.child(c.pid("/node"))
	e.Id = c.unique("same")
	other.Id = e.Id
	first := c.entry(e)
	result := c.create(nil, other)[0]
	c.status(result.Status, codes.AlreadyExists, "failed to create entry: …")
	c.equal("entry of the result", result.Entry, (*types.Entry)(nil))
	c.equal("the first entry", c.getEntry(e.Id), first)
}

// createRefused is entries whose IDs and selectors are refused, in a batch with one that is not.
func createRefused(c *C) {
	td := c.td.Name()
	for text, change := range map[string]func(e *types.Entry){
		"invalid spiffe ID: request must specify SPIFFE ID": func(e *types.Entry) { e.SpiffeId = nil },
		"invalid parent ID: request must specify SPIFFE ID": func(e *types.Entry) { e.ParentId = nil },
		`invalid spiffe ID: "spiffe://other.test/x" is not a member of trust domain "` + td + `"`: func(e *types.Entry) {
			e.SpiffeId = &types.SPIFFEID{TrustDomain: "other.test", Path: "/x"}
		},
		`invalid spiffe ID: "spiffe://` + td + `" is not a workload in trust domain "` + td + `"; path is empty`: func(e *types.Entry) {
			e.SpiffeId.Path = ""
		},
		`invalid spiffe ID: "spiffe://` + td + `/spire/web" is not a workload in trust domain "` + td + `"; path is in the reserved namespace`: func(e *types.Entry) {
			e.SpiffeId.Path = "/spire/web"
		},
		`invalid parent ID: "spiffe://` + td + `" is not a member of trust domain "` + td + `"; path is empty`: func(e *types.Entry) {
			e.ParentId.Path = ""
		},
		`invalid parent ID: "spiffe://other.test/x" is not a member of trust domain "` + td + `"`: func(e *types.Entry) {
			e.ParentId = &types.SPIFFEID{TrustDomain: "other.test", Path: "/x"}
		},
		"invalid spiffe ID: path must have a leading slash":          func(e *types.Entry) { e.SpiffeId.Path = "web" },
		"invalid spiffe ID: path cannot contain empty segments":      func(e *types.Entry) { e.SpiffeId.Path = "/a//b" },
		"invalid spiffe ID: path cannot contain dot segments":        func(e *types.Entry) { e.SpiffeId.Path = "/a/../b" },
		"invalid spiffe ID: path segment characters are limited to…": func(e *types.Entry) { e.SpiffeId.Path = "/a b" },
		"selector list is empty":                                     func(e *types.Entry) { e.Selectors = []*types.Selector{} },
		"missing selector type":                                      func(e *types.Entry) { e.Selectors[0].Type = "" },
		"selector type contains ':'":                                 func(e *types.Entry) { e.Selectors[0].Type = "a:b" },
		"missing selector value":                                     func(e *types.Entry) { e.Selectors[0].Value = "" },
		"hint is too long, max length is 1024 characters":            func(e *types.Entry) { e.Hint = strings.Repeat("h", 1025) },
		"invalid federated trust domain: …":                          func(e *types.Entry) { e.FederatesWith = []string{"no domain"} },
	} {
		bad, good := c.child(c.pid("/node")), c.child(c.pid("/node"))
		change(bad)
		results := c.create(nil, bad, good)
		c.status(results[0].Status, codes.InvalidArgument, c.words("failed to convert entry: "+text, "failed to convert entry: …"))
		c.equal("entry of a refused item", results[0].Entry, (*types.Entry)(nil))
		c.ok(results[1].Status)
	}
}

// createFieldsRefused is what SPIRE's store refuses.
func createFieldsRefused(c *C) {
	for text, change := range map[string]func(e *types.Entry){
		"X509SvidTtl is not set":                func(e *types.Entry) { e.X509SvidTtl = -1 },
		"JwtSvidTtl is not set":                 func(e *types.Entry) { e.JwtSvidTtl = -1 },
		"entry ID too long":                     func(e *types.Entry) { e.Id = strings.Repeat("i", 256) },
		"entry ID contains invalid characters":  func(e *types.Entry) { e.Id = "a/b" },
		"entry ID contains invalid characters ": func(e *types.Entry) { e.Id = "a~b" },
		"selector types must be the same when store SVID is enabled": func(e *types.Entry) {
			e.StoreSvid = true
			e.Selectors = append(e.Selectors, &types.Selector{Type: "other", Value: "v"})
		},
	} {
		bad := c.child(c.pid("/node"))
		change(bad)
		c.status(c.create(nil, bad)[0].Status, codes.InvalidArgument, c.words(
			"failed to create entry: datastore-validation: invalid registration entry: "+strings.TrimSpace(text), "failed to convert entry: …"))
	}
	bad := c.child(c.pid("/node"))
	bad.StoreSvid, bad.AdditionalAttributes = true, &types.Entry_AdditionalAttributes{DisableX509SvidPrefetch: true}
	c.status(c.create(nil, bad)[0].Status, codes.InvalidArgument, c.words(
		"failed to create entry: datastore-validation: specifying cache behaviour is incompatible with storable SVIDs", "failed to convert entry: …"))
	longest := c.child(c.pid("/node"))
	longest.Id, longest.Hint = c.unique(strings.Repeat("i", 200)), strings.Repeat("h", 1024)
	c.ok(c.create(nil, longest)[0].Status)
}

func dnsNames(c *C) {
	for _, good := range []string{"a", "a.b", "A-b.c", "*.a.test", "a_b.test", "1.2.3.4", strings.Repeat("a", 63)} {
		e := c.child(c.pid("/node"))
		e.DnsNames = []string{good}
		c.ok(c.create(nil, e)[0].Status)
	}
	for _, bad := range []string{"", "a..b", "-a", "a-", ".a", "a.", "*", "*a.test", "a.*.test", "*.*.test", "é.test", strings.Repeat("a", 64)} {
		e := c.child(c.pid("/node"))
		e.DnsNames = []string{bad}
		c.status(c.create(nil, e)[0].Status, codes.InvalidArgument,
			c.words("failed to convert entry: invalid DNS name: …", "failed to convert entry: invalid DNS name …"))
	}
}

func federatesUnknown(c *C) {
	e := c.child(c.pid("/node"))
	e.FederatesWith = []string{c.foreignDomain().TrustDomain}
	result := c.create(nil, e)[0]
	if c.Differs("entry: unknown federated domain") {
		c.ok(result.Status)
	} else {
		c.status(result.Status, codes.Internal, "failed to create entry: …")
	}
}
