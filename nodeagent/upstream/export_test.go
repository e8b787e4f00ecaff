package upstream

import "time"

// Hurry shortens how long a stream may be silent, and after how long the first
// issuer is tried again. It is called before Run.
func (c *Client) Hurry(silence, firstBack time.Duration) {
	c.limits.silence, c.limits.firstBack = silence, firstBack
}

// Bound bounds a change in time and in bytes. It is called before Run.
func (c *Client) Bound(time time.Duration, bytes int) {
	c.limits.changeTime, c.limits.changeSize = time, bytes
}
