package upstream

import (
	"regexp"
	"strconv"
)

var (
	rpcWords  = regexp.MustCompile(`rpc error: code = \w+ desc = `)
	connWords = regexp.MustCompile(`(?:last connection error: )?connection error: desc = ("(?:[^"\\]|\\.)*")`)
	dialWords = regexp.MustCompile(`^(?:transport: )?(?:Error while dialing: )?`)
)

// Reason is an error of the issuer's for people to read: what gRPC wraps around
// it is left out.
func Reason(err error) string { return reason(err) }

// reason is an error for the log: what gRPC wraps around each is left out.
func reason(err error) string {
	text := rpcWords.ReplaceAllString(err.Error(), "")
	return connWords.ReplaceAllStringFunc(text, func(found string) string {
		inner, err := strconv.Unquote(connWords.FindStringSubmatch(found)[1])
		if err != nil {
			return found
		}
		return dialWords.ReplaceAllString(inner, "")
	})
}
