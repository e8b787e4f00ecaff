// Package spireapi_test holds the generated code to the .proto files beside it. It compiles them in the test, so
// code that was not generated again can't pass, and no test needs the generator.
package spireapi_test

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentadminv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentdebugv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentloggerv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/changesv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/debugv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/delegatedidentityv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/localauthorityv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/loggerv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/operationsv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/svidv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/trustdomainv1"
	_ "github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	_ "github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

const root = "proto"

func TestGeneratedCodeIsThatOfTheProtoFiles(t *testing.T) {
	for _, path := range protoFiles(t) {
		t.Run(path, func(t *testing.T) {
			generated, err := protoregistry.GlobalFiles.FindFileByPath(path)
			if err != nil {
				t.Fatalf("no generated code for %s: run make generate, and import its package here", path)
			}
			want, got := compiled(t, path), protodesc.ToFileDescriptorProto(generated)
			if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
				t.Errorf("the generated code of %s is not current, run make generate (-proto +code):\n%s", path, diff)
			}
		})
	}
}

func TestGRPCStubsAreThoseOfTheProtoFiles(t *testing.T) {
	for _, stub := range []grpc.ServiceDesc{
		agentv1.Agent_ServiceDesc, bundlev1.Bundle_ServiceDesc, entryv1.Entry_ServiceDesc, svidv1.SVID_ServiceDesc,
		trustdomainv1.TrustDomain_ServiceDesc, localauthorityv1.LocalAuthority_ServiceDesc, loggerv1.Logger_ServiceDesc,
		debugv1.Debug_ServiceDesc, operationsv1.Operations_ServiceDesc,
		changesv1.Changes_ServiceDesc, agentadminv1.Admin_ServiceDesc, agentdebugv1.Debug_ServiceDesc,
		agentloggerv1.Logger_ServiceDesc, delegatedidentityv1.DelegatedIdentity_ServiceDesc,
	} {
		t.Run(stub.ServiceName, func(t *testing.T) {
			found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(stub.ServiceName))
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]string{}
			methods := found.(protoreflect.ServiceDescriptor).Methods()
			for i := range methods.Len() {
				method := methods.Get(i)
				want[string(method.Name())] = kind(method.IsStreamingClient(), method.IsStreamingServer())
			}
			got := map[string]string{}
			for _, method := range stub.Methods {
				got[method.MethodName] = kind(false, false)
			}
			for _, stream := range stub.Streams {
				got[stream.StreamName] = kind(stream.ClientStreams, stream.ServerStreams)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the stubs of %s are not current, run make generate (-proto +code):\n%s", stub.ServiceName, diff)
			}
		})
	}
}

// kind names how a method streams.
func kind(client, server bool) string {
	words := map[bool]string{true: "stream", false: "one"}
	return words[client] + " in, " + words[server] + " out"
}

// protoFiles lists every .proto file, by its path as an import names it.
func protoFiles(t *testing.T) []string {
	t.Helper()
	var paths []string
	err := fs.WalkDir(os.DirFS(root), ".", func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".proto") {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil || len(paths) == 0 {
		t.Fatalf("found %d .proto files below %s: %v", len(paths), root, err)
	}
	return paths
}

// compiled is the file as the .proto says it, without its comments and positions, as generated code embeds it.
func compiled(t *testing.T, path string) *descriptorpb.FileDescriptorProto {
	t.Helper()
	compiler := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{
		Accessor: func(path string) (io.ReadCloser, error) { return os.Open(filepath.Join(root, path)) },
	})}
	files, err := compiler.Compile(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	file := protodesc.ToFileDescriptorProto(files[0])
	file.SourceCodeInfo = nil
	// Options of the compiled file may hold unknown fields for what the compiler knows by reflection only.
	out := &descriptorpb.FileDescriptorProto{}
	raw, err := proto.Marshal(file)
	if err == nil {
		err = proto.Unmarshal(raw, out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}
