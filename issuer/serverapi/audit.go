package serverapi

import (
	"log/slog"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// maxLoggedText bounds, in bytes, an error in the log: those about a stranger's
// certificate or CSR repeat parts of it, more than once and in quotes.
const maxLoggedText = 1 << 10

func clip(text string) string {
	if len(text) <= maxLoggedText {
		return text
	}
	return strings.ToValidUTF8(text[:maxLoggedText], "") + "..."
}

// maxLoggedIDs bounds the entries that one line of the log names.
const maxLoggedIDs = 20

// batchAttrs tell in the log what became of a batch of entries.
func batchAttrs(resp any) []slog.Attr {
	var b batch
	switch resp := resp.(type) {
	case *entryv1.BatchCreateEntryResponse:
		for _, r := range resp.GetResults() {
			b.add(r.GetStatus(), r.GetEntry().GetId())
		}
	case *entryv1.BatchUpdateEntryResponse:
		for _, r := range resp.GetResults() {
			b.add(r.GetStatus(), r.GetEntry().GetId())
		}
	case *entryv1.BatchDeleteEntryResponse:
		for _, r := range resp.GetResults() {
			b.add(r.GetStatus(), r.GetId())
		}
	default:
		return nil
	}
	return []slog.Attr{slog.Int("done", b.done), slog.Int("failed", b.failed), slog.Any("entries", b.ids)}
}

type batch struct {
	done, failed int
	ids          []string // of those done
}

func (b *batch) add(st *types.Status, id string) {
	if codes.Code(st.GetCode()) != codes.OK {
		b.failed++
		return
	}
	b.done++
	if len(b.ids) < maxLoggedIDs {
		b.ids = append(b.ids, id)
	}
}
