package upstream

import "time"

// Hurry shortens how long a stream may be silent, and after how long the first
// issuer is tried again. It is called before Run.
func (c *Client) Hurry(silence, firstBack time.Duration) { c.silence, c.firstBack = silence, firstBack }
