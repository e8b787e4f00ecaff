package cli

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// ReadTyped asks for a secret and reads a line that is typed, without showing it. typed is false, and nothing is read, if in is no
// terminal.
func ReadTyped(in io.Reader, out io.Writer, what string) (line string, typed bool, err error) {
	f, ok := in.(*os.File)
	if !ok || !IsTerminal(f) {
		return "", false, nil
	}
	show, err := hideTyping(f)
	if err != nil {
		return "", true, fmt.Errorf("%s: hide what is typed: %w", what, err)
	}
	defer show()
	fmt.Fprintf(out, "%s: ", what)
	defer fmt.Fprintln(out)
	line, err = bufio.NewReader(io.LimitReader(f, 4096)).ReadString('\n') // a terminal's line is no longer
	if err == io.EOF {
		err = nil
	}
	return line, true, err
}

// hideTyping switches a terminal's echo off, and gives what switches it on again. A signal that ends the process does that first.
func hideTyping(f *os.File) (show func(), err error) {
	fd := int(f.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, err
	}
	hidden := *before
	hidden.Lflag &^= unix.ECHO
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &hidden); err != nil {
		return nil, err
	}
	got := make(chan os.Signal, 1)
	signal.Notify(got, syscall.SIGINT, syscall.SIGTERM)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		select {
		case s := <-got:
			unix.IoctlSetTermios(fd, unix.TCSETS, before)
			signal.Stop(got)
			if s, ok := s.(syscall.Signal); ok {
				syscall.Kill(os.Getpid(), s)
			}
		case <-quit:
		}
	}()
	return func() {
		signal.Stop(got)
		close(quit)
		<-done
		unix.IoctlSetTermios(fd, unix.TCSETS, before)
	}, nil
}
