package systemd

import "testing"

func TestSocketOfBusAddress(t *testing.T) {
	for address, want := range map[string]string{
		"":                                   defaultSocket,
		"unix:path=/a":                       "/a",
		"unix:guid=12,path=/a":               "/a",
		"tcp:host=h,port=1;unix:path=/a,x=y": "/a",
		"unix:path=":                         defaultSocket,
		"unix:abstract=x":                    defaultSocket,
	} {
		if got := socketOf(address); got != want {
			t.Errorf("%q: %q, want %q", address, got, want)
		}
	}
}
