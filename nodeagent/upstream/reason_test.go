package upstream

import (
	"errors"
	"testing"
)

// TestReasonsAreWithoutTheWrapping: what an operator reads in the log of an agent whose issuer is away.
func TestReasonsAreWithoutTheWrapping(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`entries: rpc error: code = Unavailable desc = connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:8081: connect: connection refused"`: "entries: dial tcp 127.0.0.1:8081: connect: connection refused",
		`rpc error: code = Unavailable desc = connection error: desc = "transport: authentication handshake failed: x509: \"a\" is not b"`:                              `authentication handshake failed: x509: "a" is not b`,
		`rpc error: code = Unavailable desc = last connection error: connection error: desc = "transport: Error while dialing: no route"`:                               "no route",
		`rpc error: code = Internal desc = datastore-sql: it's broken`:                                                                                                  "datastore-sql: it's broken",
		`plain`: "plain",
	} {
		if got := reason(errors.New(text)); got != want {
			t.Errorf("%s\nis    %s\nwant  %s", text, got, want)
		}
	}
}
