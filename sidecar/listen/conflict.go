package listen

// Key returns what two configurations compare to see that a listener stays: addresses with equal keys are one socket.
func (a Address) Key() string { return a.String() }

// Conflicts says whether a and b can't both be listened on.
func Conflicts(a, b Address) bool { return a.Key() == b.Key() }
