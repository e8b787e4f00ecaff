package serverapi

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/issuer/enroll"
)

// testMethod is an enroll.Method that shows what a method is given. Its payload
// is "NAME ROUNDS", how often it challenges, or "NAME malformed", "NAME refused"
// or "NAME broken". A response must be the challenge again.
type testMethod struct{}

func (testMethod) Attest(ctx context.Context, c enroll.Conversation) (enroll.Evidence, error) {
	name, rounds, _ := strings.Cut(string(c.Payload), " ")
	switch rounds {
	case "malformed":
		return enroll.Evidence{}, fmt.Errorf("%w: it is %s", enroll.ErrMalformed, name)
	case "refused":
		return enroll.Evidence{}, fmt.Errorf("%w: it is %s", enroll.ErrRefused, name)
	case "broken":
		return enroll.Evidence{}, fmt.Errorf("the cloud is away")
	}
	n, err := strconv.Atoi(rounds)
	if err != nil {
		return enroll.Evidence{}, fmt.Errorf("%w: %w", enroll.ErrMalformed, err)
	}
	for i := range n {
		challenge := fmt.Appendf(nil, "challenge %d", i)
		response, err := c.Challenge(ctx, challenge)
		switch {
		case err != nil:
			return enroll.Evidence{}, fmt.Errorf("challenge: %w", err)
		case string(response) != string(challenge):
			return enroll.Evidence{}, fmt.Errorf("%w: wrong response", enroll.ErrRefused)
		}
	}
	material := "none"
	if c.Exporter != nil {
		key, err := c.Exporter("EXPORTER-test", []byte("context"), 8)
		if err != nil {
			return enroll.Evidence{}, err
		}
		material = fmt.Sprintf("%x", key)
	}
	return enroll.Evidence{
		ID: spiffeid.RequireFromPath(td, "/spire/agent/test/"+name),
		Selectors: []registration.Selector{
			{Type: "test", Value: "peer:" + c.Peer.String()}, {Type: "test", Value: "exporter:" + material},
		},
		Reattestable: true,
	}, nil
}
