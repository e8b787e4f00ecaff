package store

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"go.etcd.io/etcd/server/v3/proxy/grpcproxy/adapter"
	"google.golang.org/grpc"
)

// newClient returns a client of the etcd in this process whose reads and writes
// return, with the cause of life's end, once lost is closed.
func newClient(server *etcdserver.EtcdServer, life context.Context, lost <-chan struct{}) *clientv3.Client {
	client := v3client.New(server)
	kv := adapter.KvServerToKvClient(v3rpc.NewQuotaKVServer(server))
	client.KV = clientv3.NewKVFromKVClient(&lostKV{KVClient: kv, life: life, lost: lost}, client)
	return client
}

// lostKV gives up calls to an etcd that has failed. The goroutine that failed
// may have held etcd's locks (that of all reads, where it was writing its
// backend), and who waits for one of them does not look at its context.
type lostKV struct {
	pb.KVClient
	life context.Context
	lost <-chan struct{}
}

func (k *lostKV) Range(ctx context.Context, in *pb.RangeRequest, opts ...grpc.CallOption) (*pb.RangeResponse, error) {
	return ask(k, func() (*pb.RangeResponse, error) { return k.KVClient.Range(ctx, in, opts...) })
}

func (k *lostKV) Put(ctx context.Context, in *pb.PutRequest, opts ...grpc.CallOption) (*pb.PutResponse, error) {
	return ask(k, func() (*pb.PutResponse, error) { return k.KVClient.Put(ctx, in, opts...) })
}

func (k *lostKV) DeleteRange(ctx context.Context, in *pb.DeleteRangeRequest, opts ...grpc.CallOption) (*pb.DeleteRangeResponse, error) {
	return ask(k, func() (*pb.DeleteRangeResponse, error) { return k.KVClient.DeleteRange(ctx, in, opts...) })
}

func (k *lostKV) Txn(ctx context.Context, in *pb.TxnRequest, opts ...grpc.CallOption) (*pb.TxnResponse, error) {
	return ask(k, func() (*pb.TxnResponse, error) { return k.KVClient.Txn(ctx, in, opts...) })
}

func (k *lostKV) Compact(ctx context.Context, in *pb.CompactionRequest, opts ...grpc.CallOption) (*pb.CompactionResponse, error) {
	return ask(k, func() (*pb.CompactionResponse, error) { return k.KVClient.Compact(ctx, in, opts...) })
}

// ask returns what call does, or leaves it behind where etcd is lost: the
// process is about to end then.
func ask[T any](k *lostKV, call func() (*T, error)) (*T, error) {
	type answer struct {
		resp *T
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		resp, err := call()
		answered <- answer{resp, err}
	}()
	select {
	case a := <-answered:
		return a.resp, a.err
	case <-k.lost:
		return nil, context.Cause(k.life)
	}
}
