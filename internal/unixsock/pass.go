package unixsock

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Pass sends data over a UNIX socket, and with it a duplicate of the file
// descriptor of file (SCM_RIGHTS, unix(7)); a nil file sends data alone. The
// socket is one that keeps messages apart, so that they arrive together.
func Pass(c *net.UnixConn, data []byte, file syscall.Conn) error {
	var oob []byte
	send := func() error {
		// Not by WriteMsgUnix, which refuses connected datagram sockets.
		raw, err := c.SyscallConn()
		if err != nil {
			return err
		}
		var sendErr error
		err = raw.Write(func(fd uintptr) bool {
			sendErr = unix.Sendmsg(int(fd), data, oob, nil, unix.MSG_NOSIGNAL)
			return !errors.Is(sendErr, unix.EAGAIN)
		})
		return errors.Join(err, sendErr)
	}
	if file == nil {
		return send()
	}
	// Not by way of os.File: its Fd would make the descriptor blocking, and with
	// it the one in use here, which shares its flags.
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	err = raw.Control(func(fd uintptr) {
		oob = unix.UnixRights(int(fd))
		sendErr = send()
	})
	return errors.Join(err, sendErr)
}

// Receive reads one message into buf, and the file that came with it, if one
// did: nil otherwise. A message that is longer than buf, or comes with more, is
// an error. At the end of the stream it is [io.EOF].
func Receive(c *net.UnixConn, buf []byte) (n int, file *os.File, err error) {
	oob := make([]byte, unix.CmsgSpace(4*8)) // room for more than one, so that they can be closed
	n, oobn, flags, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		return 0, nil, err
	}
	files, err := rights(oob[:oobn])
	switch {
	case err != nil:
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		err = errors.New("message on a socket is longer than it may be")
	case len(files) > 1:
		err = fmt.Errorf("message on a socket came with %d files, want one", len(files))
	case len(files) == 1:
		return n, files[0], nil
	default:
		return n, nil, nil
	}
	for _, f := range files {
		err = errors.Join(err, f.Close())
	}
	return 0, nil, err
}

// rights returns the files in a control message, all of them: whoever leaves
// one out leaks it.
func rights(oob []byte) ([]*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue // of another kind
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}
