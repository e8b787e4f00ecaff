package listen_test

import (
	"strings"
	"testing"

	"github.com/lanyard-mtls/lanyard/internal/listen"
)

func TestTCPNamesThePortThatIsInUse(t *testing.T) {
	l, err := listen.TCP(t.Context(), "bind_port", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = listen.TCP(t.Context(), "bind_port in health_checks", l.Addr().String())
	if err == nil || !strings.Contains(err.Error(), "set another bind_port in health_checks") {
		t.Errorf("%v, want the key that names the port", err)
	}
	if _, err := listen.TCP(t.Context(), "bind_port", "192.0.2.1:0"); err == nil || !strings.Contains(err.Error(), "192.0.2.1 is not an address of this machine") {
		t.Errorf("%v, want that the address is another machine's", err)
	}
}
