package registration

import (
	"reflect"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// FuzzDecoder checks that a Decoder reads whatever bytes as their message is
// read, the first time and when it knows what is in them.
func FuzzDecoder(f *testing.F) {
	entry := func() *types.Entry {
		return &types.Entry{
			Id:        "0b3f5a5e-95a5-4d64-b1ea-1d3d6a3f2a11",
			SpiffeId:  &types.SPIFFEID{TrustDomain: "td.test", Path: "/a"},
			ParentId:  &types.SPIFFEID{TrustDomain: "td.test", Path: "/node"},
			Selectors: []*types.Selector{{Type: "unix", Value: "gid:1"}, {Type: "unix", Value: "uid:1"}},
			CreatedAt: 1_800_000_000,
		}
	}
	for _, change := range []func(*types.Entry){
		func(*types.Entry) {},
		func(e *types.Entry) { e.X509SvidTtl, e.JwtSvidTtl, e.RevisionNumber = 60, -60, 3 },
		func(e *types.Entry) { e.Admin, e.Hint, e.DnsNames = true, "x", []string{"a.test"} },
		func(e *types.Entry) { e.ExpiresAt, e.FederatesWith = 1_900_000_000, []string{"other.test"} },
		func(e *types.Entry) { e.SpiffeId.Path = "/docker/{{docker:label:app}}" },
		func(e *types.Entry) { e.SpiffeId.Path = "no-slash" },
		func(e *types.Entry) { e.SpiffeId.Path = "//" },
		func(e *types.Entry) { e.SpiffeId.Path = "" },
		func(e *types.Entry) { e.SpiffeId.TrustDomain = "td.test/b" },
		func(e *types.Entry) { e.ParentId.TrustDomain = "spiffe://td.test" },
		func(e *types.Entry) { e.ParentId = nil },
		func(e *types.Entry) { e.Selectors = append(e.Selectors, e.Selectors[0]) },
		func(e *types.Entry) { e.Selectors[0].Type = "a:b" },
		func(e *types.Entry) { e.Selectors = nil },
		func(e *types.Entry) { e.CreatedAt = -1 },
	} {
		e := entry()
		change(e)
		data, err := proto.Marshal(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("\x0a\x01\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p := &types.Entry{}
		var want Entry
		wantErr := proto.Unmarshal(data, p)
		if wantErr == nil {
			want, wantErr = FromProto(p)
		}
		var d Decoder
		for range 2 {
			got, err := d.Entry(data)
			if (err == nil) != (wantErr == nil) {
				t.Fatalf("err = %v, want %v", err, wantErr)
			}
			if err == nil && !reflect.DeepEqual(got, want) {
				t.Fatalf("got %+v, want %+v", got, want)
			}
		}
	})
}

// TestDecoderReadsUsualEntriesItself keeps the usual from going the long way.
func TestDecoderReadsUsualEntriesItself(t *testing.T) {
	data, err := proto.Marshal(&types.Entry{
		Id: "x", SpiffeId: &types.SPIFFEID{TrustDomain: "td.test", Path: "/a"},
		ParentId:  &types.SPIFFEID{TrustDomain: "td.test", Path: "/node"},
		Selectors: []*types.Selector{{Type: "unix", Value: "uid:1"}}, X509SvidTtl: 60, CreatedAt: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	var d Decoder
	if _, ok := d.usual(data); !ok {
		t.Error("the decoder leaves the usual entry to others")
	}
}
