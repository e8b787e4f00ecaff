package serverapi

import (
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
)

// A stranger is refused before it has sent anything, and a line says so.
func TestStrangersAreNotListenedTo(t *testing.T) {
	r := newRig(t)
	const method = entryv1.Entry_BatchCreateEntry_FullMethodName
	stream, err := r.as(nil).NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true}, method)
	must(t, err)
	err = stream.RecvMsg(&emptypb.Empty{})
	wantStatus(t, err, codes.PermissionDenied, "authorization denied for method "+method)
	if n := len(r.lines("level=WARN", method, "caller=none", "address=127.0.0.1:", "code=PermissionDenied")); n != 1 {
		t.Errorf("%d lines", n)
	}
}
