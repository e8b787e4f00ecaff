package metrics

// Redacted is what of a URL is logged.
func Redacted(s string) string { return redacted(s) }
