package metrics

import (
	"path"
	"strings"
	"sync"
	"unicode"
)

// maxNames bounds the series that names in calls can make: all services have 80 methods.
const maxNames = 256

// Names are those of RPCs in metrics. They are what a client called, so there are at most 256 of them. The zero Names is ready
// to use.
type Names struct {
	mu   sync.Mutex
	seen map[string]string // guarded by mu
}

// Of makes Entry/ListEntries of /spire.api.server.entry.v1.Entry/ListEntries, and "other" where there are too many.
func (n *Names) Of(method string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if name, ok := n.seen[method]; ok {
		return name
	}
	if len(n.seen) >= maxNames {
		return "other"
	}
	service, call := path.Split(method)
	service = strings.Trim(service, "/")
	name := strings.ToValidUTF8(service[strings.LastIndexByte(service, '.')+1:]+"/"+call, "_")
	if n.seen == nil {
		n.seen = map[string]string{}
	}
	n.seen[method] = name
	return name
}

// Snake makes mint_x509svid of MintX509SVID, as SPIRE does: a capital letter begins a word if a small one is beside it.
func Snake(s string) string {
	in := []rune(s)
	var out strings.Builder
	under := false
	for i, r := range in {
		if !unicode.IsLetter(r) && !unicode.IsNumber(r) || r > unicode.MaxASCII {
			out.WriteByte('_')
			under = true
			continue
		}
		if unicode.IsUpper(r) && i > 0 && i+1 < len(in) && (unicode.IsLower(in[i+1]) || unicode.IsLower(in[i-1])) && !under {
			out.WriteByte('_')
		}
		out.WriteRune(unicode.ToLower(r))
		under = false
	}
	return out.String()
}
