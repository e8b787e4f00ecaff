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
		w.moved(w.unsent)
		p.active.Store(p.loop.Nanos())
	}
	if w.state == closing {
		p.wayOver(w, ended)
	}
	return w.state == open
}

// moved counts n of the bytes that are on their way as gone.
func (w *way) moved(n int64) {
	w.total += n
	if w.count != nil {
		w.count.Add(n)
	}
	w.unsent -= n
}

// countPart counts, at the end, what the kernel took of a write that it did not take
// whole. Of TLS records that cannot be said in bytes of the stream.
func (w *way) countPart() {
	out := w.dst.sock.out
	if w.unsent == 0 || w.dst.tls != nil || out == nil {
		return
	}
	if n := w.unsent - int64(len(out.data)); n > 0 {
		w.moved(n)
	}
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
