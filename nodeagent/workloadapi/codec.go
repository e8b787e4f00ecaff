package workloadapi

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// encoded is a message in its wire form, shared by all streams that send it.
type encoded []byte

// Codec is gRPC's protobuf codec, except that messages which are encoded already
// pass as they are. A server that this package's service is registered on must
// be made with it (grpc.ForceServerCodecV2).
type Codec struct{ encoding.CodecV2 }

// NewCodec returns the codec.
func NewCodec() Codec { return Codec{encoding.GetCodecV2(proto.Name)} }

// Marshal implements [encoding.CodecV2].
func (c Codec) Marshal(v any) (mem.BufferSlice, error) {
	if b, ok := v.(encoded); ok {
		// Not from a pool: freeing it does nothing.
		return mem.BufferSlice{mem.SliceBuffer(b)}, nil
	}
	return c.CodecV2.Marshal(v)
}
