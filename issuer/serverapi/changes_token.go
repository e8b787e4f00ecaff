package serverapi

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/issuer/registry"
	"github.com/lanyard-mtls/lanyard/issuer/store"
)

// resumeToken says what an agent holds: all that its holder may know as of a
// position in the history of the store that had the run. It is no secret, and who
// makes one up harms itself alone: it is told what has changed for it since.
type resumeToken struct {
	run    store.Run
	holder holder
	at     registry.Position
}

// holder names, by 8 bytes of a hash, who holds what: another agent, and one that
// is told of ID templates where it was not, holds something else.
type holder [8]byte

func holderOf(agent spiffeid.ID, templates bool) holder {
	text := agent.String()
	if templates {
		text += "#templates"
	}
	sum := sha256.Sum256([]byte(text))
	return holder(sum[:8])
}

// A token is a version, then run, holder, revision and second, big endian.
const (
	resumeVersion = 1
	resumeBytes   = 1 + len(store.Run{}) + len(holder{}) + 8 + 8
)

func (t resumeToken) bytes() []byte {
	b := make([]byte, 0, resumeBytes)
	b = append(b, resumeVersion)
	b = append(b, t.run[:]...)
	b = append(b, t.holder[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(t.at.Revision))
	return binary.BigEndian.AppendUint64(b, uint64(t.at.Second))
}

// parseResumeToken reads what an agent sends for one; false if it is none.
func parseResumeToken(b []byte) (t resumeToken, ok bool) {
	if len(b) != resumeBytes || b[0] != resumeVersion {
		return resumeToken{}, false
	}
	b = b[1:]
	b = b[copy(t.run[:], b):]
	b = b[copy(t.holder[:], b):]
	t.at.Revision = store.Revision(binary.BigEndian.Uint64(b))
	t.at.Second = int64(binary.BigEndian.Uint64(b[8:]))
	return t, t.at.Revision > 0
}
