package traffic

import (
	"cmp"
	"errors"
	"fmt"
	"time"
)

// Report is what became of the conversations.
type Report struct {
	Talks, Whole, Excused int
	Excuses               map[string]int
	Bytes                 int64 // that arrived, both ways
	Faults                []error
}

// String is the report less its faults.
func (r Report) String() string {
	return fmt.Sprintf("%d conversations, %.1f MB: %d whole, %d excused %v", r.Talks, float64(r.Bytes)/1e6, r.Whole, r.Excused, r.Excuses)
}

// Check says what became of the conversations; call it after Finish.
func (t *Traffic) Check() Report {
	r := Report{Excuses: map[string]int{}}
	for _, talk := range t.Talks() {
		r.Talks++
		r.Bytes += talk.client.got
		if talk.backend != nil {
			r.Bytes += talk.backend.got
		}
		if fault := t.fault(talk); fault != nil {
			r.Faults = append(r.Faults, fmt.Errorf("conversation %d of %s, %v old: %w", talk.ID, talk.Local,
				talk.client.ended.Sub(talk.opened).Round(time.Millisecond), fault))
		} else if talk.whole() {
			r.Whole++
		} else {
			r.Excused++
			r.Excuses[cmp.Or(talk.excuse, "the backend was away")]++
		}
	}
	for _, id := range t.twice {
		r.Faults = append(r.Faults, fmt.Errorf("conversation %d arrived twice", id))
	}
	return r
}

// whole tells whether everything arrived, both ways, and both ends know it.
func (talk *Talk) whole() bool {
	c, b := talk.client, talk.backend
	return b != nil && errors.Join(c.written, c.read, b.written, b.read) == nil && c.sent == b.got && b.sent == c.got
}

// regular tells whether a side was told a regular end. After a failed write it was not: the kernel reports a reset once,
// to whoever asks first, and a regular end to everybody else.
func (s *side) regular() bool { return s.read == nil && s.wrong == nil && s.written == nil }

// fault is what is wrong with a conversation. A clean end after less than everything is wrong even when excused.
func (t *Traffic) fault(talk *Talk) error {
	c, b := talk.client, talk.backend
	if b == nil {
		if c.regular() {
			return errors.New("it never reached the backend, and its client was told a regular end")
		}
		if talk.excuse == "" && !t.wasDown(talk.opened, c.ended) {
			return fmt.Errorf("it never reached the backend, which was there: %w", errors.Join(c.read, c.written))
		}
		return c.wrong
	}
	switch {
	case c.wrong != nil || b.wrong != nil:
		return errors.Join(c.wrong, b.wrong)
	case c.regular() && (c.got != b.sent || b.written != nil):
		return fmt.Errorf("the client was told a regular end after %d bytes of %d (the backend's writing: %v)", c.got, b.sent, b.written)
	case b.regular() && (b.got != c.sent || c.written != nil):
		return fmt.Errorf("the backend was told a regular end after %d bytes of %d (the client's writing: %v)", b.got, c.sent, c.written)
	case !talk.whole() && talk.excuse == "":
		return fmt.Errorf("broken: client sent %d (%v), got %d (%v); backend sent %d (%v), got %d (%v)",
			c.sent, c.written, c.got, c.read, b.sent, b.written, b.got, b.read)
	}
	return nil
}
