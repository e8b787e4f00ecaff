package pipe

// budget is how many bytes move one way before other connections have their turn.
const budget = readMuch

// turn does what can be done now. mu is held, as for all that it calls.
func (p *Pipe) turn() {
	again := false
	for i := range p.ways {
		if p.state != moving {
			return
		}
		w := &p.ways[i]
		p.watch(w)
		more := p.drain(w) && p.move(w)
		again = again || more
	}
	if again && !p.queued && p.state == moving {
		p.queued = true
		p.loop.Do(p)
	}
}

// drain writes what is left from before towards w's destination. It reports
// whether that is all gone, so that there may be more.
func (p *Pipe) drain(w *way) bool {
	if p.state != moving {
		return false
	}
	dst := w.dst
	if dst.sock.out != nil {
		if !dst.writable {
			return false
		}
		if err := dst.sock.flush(); err != nil {
			p.writeFailed(w, err)
			return false
		}
	}
	return p.settle(w)
}

// settle notes what became of a write towards w's destination. It reports whether
// nothing of it is left.
func (p *Pipe) settle(w *way) bool {
	if w.dst.sock.out != nil {
		w.dst.writable = false // until the loop says so
		return false
	}
	if w.unsent > 0 {
		w.total += w.unsent
		if w.count != nil {
			w.count.Add(w.unsent)
		}
		w.unsent = 0
		p.active.Store(p.loop.Nanos())
	}
	if w.state == closing {
		p.wayOver(w, ended)
	}
	return w.state == open
}

// move moves bytes until there are no more, or dst does not take them. It reports
// whether it stopped for the sake of other connections.
func (p *Pipe) move(w *way) (more bool) {
	for moved := 0; moved < budget; {
		if !w.src.more() {
			return false
		}
		buf, err := w.src.next()
		if err != nil {
			p.sourceEnded(w, err)
			return false
		}
		if buf == nil {
			moved += readLittle // records that hold nothing take time as well
			continue
		}
		n := len(buf.data)
		moved += n
		w.unsent = int64(n)
		if err := w.dst.write(buf); err != nil {
			p.writeFailed(w, err)
			return false
		}
		if !p.settle(w) {
			return false
		}
	}
	return w.src.more()
}
