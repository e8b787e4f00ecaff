package svidcache

// prefetch chooses entries, in the order of their IDs, up to the cache's size.
func (c *Cache) prefetch() {
	for c.figures.active < c.cfg.MaxSize {
		r := c.waiting.first()
		if r == nil {
			return
		}
		r.living().prefetch = true
		c.place(r)
	}
}

// evict drops SVIDs that no stream needs, the longest unused first, until they
// are as many as the cache keeps.
func (c *Cache) evict() {
	for c.figures.active > c.cfg.MaxSize {
		r := c.idle.first()
		if r == nil {
			return
		}
		c.drop(r)
	}
}

// drop lets go of an SVID that is not to be served any more.
func (c *Cache) drop(r *record) {
	if l := r.live; l != nil {
		l.svid, l.prefetch, l.resign, l.due, l.suspect, l.lapsed = nil, false, false, false, false, false
	}
	c.place(r)
}

// reached lets what failed because the issuer was away be tried at once.
func (c *Cache) reached() {
	for r := range c.unreached {
		if r.live != nil && r.live.unreachable {
			r.live.unreachable, r.live.nextTry = false, 0
			c.place(r)
		}
	}
	clear(c.unreached)
}

// Reached says that the issuer is there again: what could not be signed because
// it was away is asked for now, and not at the next try. [Cache.Apply] says it too.
func (c *Cache) Reached() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.unreached) > 0 {
		c.reached()
		c.kick()
	}
}
