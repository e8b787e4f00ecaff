package serverapi

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// budget is the room that is left in an answer, in bytes: a client takes no
// message over [maxMessage].
type budget int

const (
	// itemOverhead bounds what surrounds an item in an answer, a status without
	// a text included.
	itemOverhead = 64
	// newIDLength is that of the IDs that the store gives.
	newIDLength = 36
)

// batchBudget is the room in the answer to a batch, with that for the ID and a
// short status of each item already taken: what a batch has done must be told.
// A batch too large even for that is refused before anything is done.
func batchBudget(ids []string) (budget, error) {
	room := budget(maxAnswer)
	for _, id := range ids {
		room -= budget(max(len(id), newIDLength) + itemOverhead)
	}
	if room < 0 {
		return 0, statusError(codes.ResourceExhausted, "the batch is too large: send it in parts", nil)
	}
	return room, nil
}

func entryIDs(entries []*types.Entry) []string {
	ids := make([]string, len(entries))
	for i, e := range entries {
		ids[i] = e.GetId()
	}
	return ids
}

// take reports whether m still fits, and takes its room if so.
func (b *budget) take(m proto.Message) bool {
	size := budget(proto.Size(m) + itemOverhead)
	if size > *b {
		return false
	}
	*b -= size
	return true
}

// entry returns e, masked, or its ID alone where there is no room for the rest.
func (b *budget) entry(e registration.Entry, mask *types.EntryMask) *types.Entry {
	p := entryProto(e, mask)
	if !b.take(p) {
		return &types.Entry{Id: e.ID}
	}
	return p
}

// status returns st, or its code alone where there is no room for the text.
func (b *budget) status(st *types.Status) *types.Status {
	if !b.take(st) {
		return &types.Status{Code: st.GetCode(), Message: codes.Code(st.GetCode()).String()}
	}
	return st
}
