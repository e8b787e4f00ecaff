package setting_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/lanyard-mtls/lanyard/sidecar/setting"
)

func TestErrorNamesTunnelKeyAndValue(t *testing.T) {
	err := setting.In("db", errors.Join(
		setting.Errorf("listen", "nowhere", "not an address: give HOST:PORT"),
		errors.Join(nil, setting.Errorf("cert", "", "cannot be read: %w", fs.ErrNotExist)),
		&setting.Error{Tunnel: "web", Key: "target", Problem: "is missing"},
	))
	want := `tunnel "db": listen nowhere: not an address: give HOST:PORT
tunnel "db": cert: cannot be read: file does not exist
tunnel "web": target: is missing`
	if err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		t.Error("the cause is lost")
	}
	if n := len(setting.All(err)); n != strings.Count(want, "\n")+1 {
		t.Errorf("%d errors", n)
	}
}

func TestNothingWrong(t *testing.T) {
	if err := setting.In("db", nil); err != nil {
		t.Error(err)
	}
	if all := setting.All(nil); all != nil {
		t.Error(all)
	}
}
