package upstream

import (
	"sync"
	"time"
)

// contact keeps what [Client.Contact] tells.
type contact struct {
	mu   sync.Mutex
	last time.Time
	push bool
	err  error
}

// Contact tells how the agent stands with its issuer.
func (c *Client) Contact() Contact {
	c.contact.mu.Lock()
	defer c.contact.mu.Unlock()
	return Contact{Last: c.contact.last, Address: c.issuers.current(), Push: c.contact.push, Err: c.contact.err}
}

// heard takes note that a call over l has ended with err: any error but those of
// [elsewhere] is an issuer's word.
func (c *Client) heard(l *link, err error) {
	if l.unverified.Load() == nil && !elsewhere(err) {
		c.contact.mu.Lock()
		defer c.contact.mu.Unlock()
		c.contact.last = time.Now()
	}
}

// attempted takes note of an attempt to be up to date.
func (c *Client) attempted(push bool, err error) {
	c.contact.mu.Lock()
	c.contact.push, c.contact.err = push, err
	if err == nil {
		c.contact.last = time.Now()
	}
	c.contact.mu.Unlock()
	if c.cfg.Attempted != nil {
		c.cfg.Attempted(err)
	}
}
