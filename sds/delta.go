package sds

import (
	"maps"
	"slices"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// delta is a DeltaSecrets stream: requests add names and drop names, responses
// hold what changed and name what is gone.
type delta struct {
	*session
	send func(*discoveryv3.DeltaDiscoveryResponse) error
}

func newDelta(ses *session, send func(*discoveryv3.DeltaDiscoveryResponse) error) *delta {
	st := &delta{session: ses, send: send}
	ses.answer = st.respondChanged
	return st
}

// receive takes a request. Its error ends the stream.
func (st *delta) receive(req *discoveryv3.DeltaDiscoveryRequest) error {
	if err := checkType(req.GetTypeUrl()); err != nil {
		return err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	subscribe := req.GetResourceNamesSubscribe()
	var held map[string]string
	if !st.started {
		held = req.GetInitialResourceVersions()
		if len(subscribe) == 0 {
			subscribe = []string{wildcard}
		}
	}
	if err := checkNames(slices.AppendSeq(slices.Clone(subscribe), maps.Keys(held)), st.ledger); err != nil {
		return err
	}
	if req.GetNode() != nil {
		st.identify(nodeFrom(req.GetNode()))
	}
	// Here a stale nonce leaves the rest of the request valid: names are added
	// and dropped, whatever the client has seen (discovery.proto).
	if nonce := req.GetResponseNonce(); nonce != "" {
		st.acknowledge(nonce, rejectionFrom(req.GetErrorDetail()))
	}
	// Dropped first: a name in both lists is one that the client wants again.
	st.ledger.unsubscribe(req.GetResourceNamesUnsubscribe())
	st.warnOdd(subscribe)
	st.ledger.subscribe(subscribe, held)
	st.begin()
	return st.respond()
}

// respondChanged sends what is due, if anything is.
func (st *delta) respondChanged() error {
	changed, gone := st.due()
	if len(changed) == 0 && len(gone) == 0 {
		return nil
	}
	resp := &discoveryv3.DeltaDiscoveryResponse{
		SystemVersionInfo: versionOf(changed), // for debugging only (discovery.proto)
		TypeUrl:           secretType,
		RemovedResources:  gone,
		Nonce:             st.nextNonce(),
	}
	for _, r := range changed {
		resp.Resources = append(resp.Resources, &discoveryv3.Resource{Name: r.name, Version: r.version, Resource: r.body})
	}
	st.log.Debug("sending secrets", "node", st.node.id, "nonce", resp.GetNonce(), "count", len(changed), "removed", abbreviateAll(gone))
	if err := st.send(resp); err != nil {
		return err
	}
	st.ledger.sent(changed)
	st.ledger.removed(gone)
	return nil
}
