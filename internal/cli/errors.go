package cli

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// UsageError is a command line that can't be understood.
type UsageError struct{ msg string }

func (e *UsageError) Error() string { return e.msg }

// Usagef makes a UsageError.
func Usagef(format string, args ...any) error { return &UsageError{fmt.Sprintf(format, args...)} }

// errPrinted is returned when the command has told what went wrong by itself.
var errPrinted = errors.New("already told")

// Printed is the error of a command that has told what went wrong by itself: it only sets the exit code.
func Printed() error { return errPrinted }

type coded struct {
	err  error
	code int
}

func (c *coded) Error() string { return c.err.Error() }
func (c *coded) Unwrap() error { return c.err }

// ExitCode has err end the process with code. nil stays nil.
func ExitCode(err error, code int) error {
	if err == nil {
		return nil
	}
	return &coded{err, code}
}

type hinted struct {
	err  error
	hint string
}

func (h *hinted) Error() string { return h.err.Error() }
func (h *hinted) Unwrap() error { return h.err }

// Hint adds advice to err: what to do, as a whole sentence or a command. nil stays nil.
func Hint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &hinted{err, fmt.Sprintf(format, args...)}
}

func hintsOf(err error) []string {
	var hints []string
	for err != nil {
		h, ok := errors.AsType[*hinted](err)
		if !ok {
			break
		}
		hints = append(hints, h.hint)
		err = h.err
	}
	return hints
}

// RPCError turns the status of a failed call into an error people read: what the server said, and the code's name. Errors
// that are no status stay as they are.
func RPCError(err error) error {
	s, ok := status.FromError(err)
	if !ok || s.Code() == codes.OK {
		return err
	}
	return &rpcError{s}
}

type rpcError struct{ status *status.Status }

func (e *rpcError) Error() string {
	return fmt.Sprintf("%s (%s)", e.status.Message(), e.status.Code())
}

// GRPCStatus lets status.Code see through.
func (e *rpcError) GRPCStatus() *status.Status { return e.status }
