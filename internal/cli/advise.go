package cli

import (
	"errors"
	"io/fs"
	"syscall"

	"github.com/lanyard-mtls/lanyard/internal/durable"
)

// Advise adds what can be done about the usual obstacles to a start. dirs says what moves the role's directories, "-dataDir
// and -socketPath".
func Advise(err error, dirs string) error {
	switch {
	case errors.Is(err, durable.ErrLocked):
		return Hint(err, "stop that process, or keep them apart with %s", dirs)
	case errors.Is(err, fs.ErrPermission):
		return Hint(err, "run it as the user these belong to, or choose others with %s", dirs)
	case errors.Is(err, syscall.EADDRINUSE):
		return Hint(err, "stop the process that uses it, or choose another port with -serverPort")
	}
	return err
}
