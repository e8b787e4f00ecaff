package sds

import (
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// stateOfTheWorld is a StreamSecrets stream: each request names the whole
// subscription, each response holds all of it that there is.
type stateOfTheWorld struct {
	*session
	send  func(*discoveryv3.DiscoveryResponse) error
	named bool // a request has named resources, so an empty list means none
}

func newStateOfTheWorld(ses *session, send func(*discoveryv3.DiscoveryResponse) error) *stateOfTheWorld {
	st := &stateOfTheWorld{session: ses, send: send}
	ses.answer = st.respondAll
	return st
}

// receive takes a request. Its error ends the stream.
func (st *stateOfTheWorld) receive(req *discoveryv3.DiscoveryRequest) error {
	if err := checkType(req.GetTypeUrl()); err != nil {
		return err
	}
	if err := checkNames(req.GetResourceNames(), ledger{}); err != nil {
		return err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if req.GetNode() != nil {
		st.identify(nodeFrom(req.GetNode()))
	}
	// Another nonce than the last one: the client had not seen our last response,
	// will answer that too, and says there what it wants then. No nonce at all is
	// a subscription that crossed our first response.
	if nonce := req.GetResponseNonce(); nonce != "" && st.sent > 0 {
		st.acknowledge(nonce, rejectionFrom(req.GetErrorDetail()))
		if nonce != st.lastNonce() {
			return nil
		}
	}
	st.subscribe(req.GetResourceNames())
	st.begin()
	return st.respond()
}

// subscribe makes names the subscription. No name at all in the first request
// is the wildcard; later it is an end of all.
func (st *stateOfTheWorld) subscribe(names []string) {
	st.named = st.named || len(names) > 0
	if !st.named {
		names = []string{wildcard}
	}
	st.warnOdd(names)
	st.ledger.replace(names)
}

// respondAll sends the whole subscription if any of it is due. What is gone is
// left out, which tells the client nothing: there is no way to say it here, and
// Envoy takes an empty response for an error. It keeps what it has.
func (st *stateOfTheWorld) respondAll() error {
	changed, gone := st.due()
	if len(gone) > 0 {
		st.log.Warn("secrets are gone; a state-of-the-world stream cannot take them back, use delta",
			"node", st.node.id, "names", abbreviateAll(gone))
		st.ledger.stranded(gone)
	}
	if len(changed) == 0 {
		return nil
	}
	rs := st.ledger.available(st.catalog, time.Now())
	resp := &discoveryv3.DiscoveryResponse{
		VersionInfo: versionOf(rs),
		Resources:   anysOf(rs),
		TypeUrl:     secretType,
		Nonce:       st.nextNonce(),
	}
	st.log.Debug("sending secrets", "node", st.node.id, "nonce", resp.GetNonce(), "version", resp.GetVersionInfo(), "count", len(rs))
	if err := st.send(resp); err != nil {
		return err
	}
	st.ledger.sent(rs)
	return nil
}

func anysOf(rs []*resource) []*anypb.Any {
	bodies := make([]*anypb.Any, 0, len(rs))
	for _, r := range rs {
		bodies = append(bodies, r.body)
	}
	return bodies
}
