package via

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
)

// maxHeader is the longest answer of an HTTP proxy, interim ones included.
const maxHeader = 16 << 10

func (p *Proxy) connectHTTP(c net.Conn, to destination) error {
	var req strings.Builder
	fmt.Fprintf(&req, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n", to, to)
	if p.user != "" {
		fmt.Fprintf(&req, "Proxy-Authorization: %s\r\n", p.basic())
	}
	req.WriteString("\r\n")
	if _, err := io.WriteString(c, req.String()); err != nil {
		return fmt.Errorf("ask for %s: %w", to, err)
	}
	code, reason, err := readAnswer(c)
	if err != nil {
		return fmt.Errorf("ask for %s: %w", to, err)
	}
	if code/100 == 2 {
		return nil
	}
	return fmt.Errorf("answered %s for %s: %s", strings.TrimSpace(strconv.Itoa(code)+" "+reason), to, p.mendHTTP(code))
}

func (p *Proxy) mendHTTP(code int) string {
	asks := code == http.StatusProxyAuthRequired || code == http.StatusUnauthorized // tinyproxy's, to a wrong password
	switch {
	case asks && p.user == "":
		return "give user and password, http://USER:PASSWORD@HOST:PORT"
	case asks:
		return "it takes another password for user " + strconv.Quote(p.user) + ", or asks for more than Basic"
	case code == http.StatusForbidden || code == http.StatusMethodNotAllowed:
		return "let the proxy permit CONNECT to that host and port"
	case code >= 500:
		return "the proxy can't reach it"
	case code/100 == 3:
		return "it is no proxy for CONNECT, but a web server"
	}
	return "see the proxy's log"
}

// readAnswer reads the proxy's final answer. After a 2xx answer what follows is the target's, which has no reason to speak before it is
// spoken to: that is refused, so that nothing is lost by reading in large pieces.
func readAnswer(c io.Reader) (code int, reason string, err error) {
	buf := make([]byte, 0, 1024)
	for {
		end := headEnd(buf)
		if end == 0 {
			if buf, err = readMore(c, buf); err != nil {
				return 0, "", err
			}
			continue
		}
		code, reason, err = parseStatusLine(buf)
		switch {
		case err != nil:
			return 0, "", err
		case code == http.StatusSwitchingProtocols:
			return 0, "", errors.New("it switches protocols unasked")
		case code/100 == 1:
			buf = buf[end:] // an interim answer (RFC 9110, section 15.2)
			continue
		case code/100 == 2 && len(buf) > end:
			return 0, "", fmt.Errorf("%d bytes follow its answer before anything was sent: it is no proxy, or the target doesn't speak TLS", len(buf)-end)
		}
		return code, reason, nil
	}
}

// readMore appends what comes next.
func readMore(c io.Reader, buf []byte) ([]byte, error) {
	if len(buf) >= maxHeader {
		return nil, fmt.Errorf("its answer has no end within %d bytes", maxHeader)
	}
	if !plausible(buf) {
		return nil, notHTTP(buf)
	}
	if len(buf) == cap(buf) {
		grown := make([]byte, len(buf), min(2*cap(buf)+1024, maxHeader+1024))
		copy(grown, buf)
		buf = grown
	}
	n, err := c.Read(buf[len(buf):min(cap(buf), maxHeader)])
	if n == 0 && err != nil {
		if err == io.EOF {
			err = errors.New("it hung up without an answer")
		}
		return nil, err
	}
	return buf[:len(buf)+n], nil
}

// plausible says whether b can still become an HTTP answer: other protocols may never send a line's end.
func plausible(b []byte) bool {
	const prefix = "HTTP/1."
	n := min(len(b), len(prefix))
	return string(b[:n]) == prefix[:n]
}

func notHTTP(b []byte) error {
	return fmt.Errorf("it does not speak HTTP, but says %.40q: is it a SOCKS5 proxy?", b)
}

// headEnd returns the length of the answer's head, 0 if its end is not there yet.
func headEnd(b []byte) int {
	for i := 0; ; {
		next := bytes.IndexByte(b[i:], '\n')
		if next < 0 {
			return 0
		}
		i += next + 1
		if rest := b[i:]; bytes.HasPrefix(rest, []byte("\r\n")) {
			return i + 2
		} else if bytes.HasPrefix(rest, []byte("\n")) {
			return i + 1
		}
	}
}

// parseStatusLine reads "HTTP/1.1 200 reason" (RFC 9112, section 4).
func parseStatusLine(head []byte) (code int, reason string, err error) {
	line, _, _ := strings.Cut(string(head), "\n")
	version, rest, _ := strings.Cut(strings.TrimSuffix(line, "\r"), " ")
	digits, reason, _ := strings.Cut(rest, " ")
	code, err = strconv.Atoi(digits)
	if err != nil || len(digits) != 3 || code < 100 || version != "HTTP/1.1" && version != "HTTP/1.0" {
		return 0, "", notHTTP([]byte(line))
	}
	return code, printable(reason), nil
}

// printable makes a stranger's words safe to log.
func printable(s string) string {
	const most = 80
	if len(s) > most {
		s = s[:most]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
