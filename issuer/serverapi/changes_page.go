package serverapi

import (
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/changesv1"
	"github.com/lanyard-mtls/lanyard/issuer/registry"
)

// pager sends one change in as many responses as it needs, each of which fits a
// message. One is in memory at a time.
type pager struct {
	stream responseSender
	resp   *changesv1.WatchResponse
	room   budget
	sent   int
}

func newPager(stream responseSender, reset bool) *pager {
	p := &pager{stream: stream}
	p.begin()
	p.resp.Reset_ = reset
	return p
}

func (p *pager) begin() { p.resp, p.room = &changesv1.WatchResponse{}, maxAnswer }

func (p *pager) send() error {
	p.sent++
	return p.stream.Send(p.resp)
}

// need makes room for an item of that many bytes. One that is larger than a whole
// message goes alone: gRPC says then what is wrong.
func (p *pager) need(bytes int) error {
	size := budget(bytes + itemOverhead)
	if size > p.room && p.room < maxAnswer {
		if err := p.send(); err != nil {
			return err
		}
		p.begin()
	}
	p.room -= size
	return nil
}

// delta sends all of d but the end.
func (p *pager) delta(d registry.Delta) error {
	for _, b := range d.Bundles {
		if err := p.need(proto.Size(b)); err != nil {
			return err
		}
		p.resp.Bundles = append(p.resp.Bundles, b)
	}
	for _, name := range d.RemovedBundles {
		if err := p.need(len(name)); err != nil {
			return err
		}
		p.resp.RemovedBundles = append(p.resp.RemovedBundles, name)
	}
	for _, id := range d.Removed {
		if err := p.need(len(id)); err != nil {
			return err
		}
		p.resp.RemovedEntryIds = append(p.resp.RemovedEntryIds, id)
	}
	for e := range d.Entries() {
		entry := e.Proto()
		if err := p.need(proto.Size(entry)); err != nil {
			return err
		}
		p.resp.Entries = append(p.resp.Entries, entry)
	}
	return nil
}

// finish sends the end. The token is within what maxAnswer leaves.
func (p *pager) finish(token []byte) error {
	p.resp.Complete, p.resp.Resume = true, token
	return p.send()
}
