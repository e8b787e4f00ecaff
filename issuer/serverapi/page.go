package serverapi

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

// A page token of agents is the SPIFFE ID of the last agent of the page before,
// so that it stays good whatever is added or removed meanwhile. It is encoded
// only to say that it is not for clients to read.

func pageToken(last string) string { return base64.RawURLEncoding.EncodeToString([]byte(last)) }

// parsePageToken returns the ID behind which the page begins; "" is the first.
func parsePageToken(token string) (string, error) {
	if token == "" {
		return "", nil
	}
	id, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err == nil {
		_, err = spiffeid.FromString(string(id))
	}
	if err != nil {
		return "", statusError(codes.InvalidArgument, "malformed page token", nil)
	}
	return string(id), nil
}

// A page token of what there is one of for each trust domain is a version and
// the name of the last trust domain of the page before.
const domainTokenVersion = "td/1/"

func domainToken(last string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(domainTokenVersion + last))
}

// parseDomainToken returns the name behind which the page begins; "" is the first.
func parseDomainToken(token string) (string, error) {
	if token == "" {
		return "", nil
	}
	data, err := base64.RawURLEncoding.Strict().DecodeString(token)
	name, ok := strings.CutPrefix(string(data), domainTokenVersion)
	if err == nil && ok {
		_, err = spiffeid.TrustDomainFromString(name)
	}
	if err != nil || !ok || domainToken(name) != token {
		return "", statusError(codes.InvalidArgument, "malformed page token",
			fmt.Errorf("%.64q is not a token of this issuer: begin again without one", token))
	}
	return name, nil
}

// domainRecord is what there is one of for each trust domain.
type domainRecord interface {
	proto.Message
	GetTrustDomain() string
}

// domainPage returns one page of records, which are sorted by trust domain, and
// the token of the next. A size of 0 or less asks for all; a page is cut where
// it would not fit a message. Every page that is cut and not empty has a token,
// even the last, as with SPIRE.
func domainPage[M domainRecord](records []M, size int32, token string, masked func(M) M) (page []M, next string, _ error) {
	after, err := parseDomainToken(token)
	if err != nil {
		return nil, "", err
	}
	from, found := slices.BinarySearchFunc(records, after, func(m M, name string) int { return strings.Compare(m.GetTrustDomain(), name) })
	if found {
		from++
	}
	paged := size > 0
	room := budget(maxAnswer)
	for _, m := range records[from:] {
		if size > 0 && len(page) == int(size) {
			break
		}
		p := masked(m)
		if !room.take(p) {
			paged = true // from here on
			break
		}
		page = append(page, p)
		after = m.GetTrustDomain()
	}
	if paged && len(page) > 0 {
		next = domainToken(after)
	}
	return page, next, nil
}
