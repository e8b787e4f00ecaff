package serverapi

import (
	"encoding/base64"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
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
