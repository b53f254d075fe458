// A delta ADS server on go-control-plane, driven by the wire's benchmark as kumafast's own is.
//
// In: a mode, a folder with the payloads, how many nodes to expect; on stdin `push`, `stats`, `settle`, `quit`.
// Out: a line of JSON for each. Never: an option that its documentation does not show; it is measured as it is used.
//
// linear: one LinearCache, which all streams share. snapshot: one snapshot for each node in a SnapshotCache, with the
// resource that all share and one of its own.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync/atomic"
	"syscall"

	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"
)

// Each push is a change: these take turns.
const variants = 3

var streams, acknowledged atomic.Int64

func read(folder, name string) *endpoint.ClusterLoadAssignment {
	data, err := os.ReadFile(filepath.Join(folder, name))
	if err != nil {
		log.Fatal(err)
	}
	assignment := &endpoint.ClusterLoadAssignment{}
	if err := proto.Unmarshal(data, assignment); err != nil {
		log.Fatal(err)
	}
	return assignment
}

// linear returns a cache in which all streams share one resource, and how to change that.
func linear(shared []*endpoint.ClusterLoadAssignment) (cache.Cache, func()) {
	name := shared[0].ClusterName
	held := cache.NewLinearCache(resource.EndpointType, cache.WithInitialResources(map[string]types.Resource{name: shared[0]}))
	count := 0
	push := func() {
		count++
		if err := held.UpdateResource(name, shared[count%variants]); err != nil {
			log.Fatal(err)
		}
	}
	return held, push
}

// snapshots returns a cache with a snapshot for each node, and how to change what they share.
func snapshots(shared []*endpoint.ClusterLoadAssignment, own *endpoint.ClusterLoadAssignment, nodes int) (cache.Cache, func()) {
	held := cache.NewSnapshotCache(true, cache.IDHash{}, nil)
	count := 0
	set := func() {
		for number := range nodes {
			version := fmt.Sprintf("%d", count)
			resources := map[resource.Type][]types.Resource{resource.EndpointType: {shared[count%variants], own}}
			snapshot, err := cache.NewSnapshot(version, resources)
			if err != nil {
				log.Fatal(err)
			}
			if err := held.SetSnapshot(context.Background(), fmt.Sprintf("mesh.sidecar-%06d", number), snapshot); err != nil {
				log.Fatal(err)
			}
		}
	}
	set()
	push := func() {
		count++
		set()
	}
	return held, push
}

func callbacks() server.CallbackFuncs {
	return server.CallbackFuncs{
		DeltaStreamOpenFunc: func(context.Context, int64, string) error {
			streams.Add(1)
			return nil
		},
		StreamDeltaRequestFunc: func(_ int64, request *discovery.DeltaDiscoveryRequest) error {
			if request.ResponseNonce != "" {
				acknowledged.Add(1)
			}
			return nil
		},
	}
}

func obey(push func()) {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		switch lines.Text() {
		case "push":
			push()
		case "settle":
			debug.FreeOSMemory()
		case "stats":
		default:
			return
		}
		fmt.Printf("{\"streams\": %d, \"acknowledged\": %d}\n", streams.Load(), acknowledged.Load())
	}
}

func main() {
	mode := flag.String("mode", "linear", "linear or snapshot")
	folder := flag.String("payloads", "", "the folder with shared-0, shared-1, shared-2 and own")
	nodes := flag.Int("nodes", 0, "how many nodes there will be")
	certificate := flag.String("certificate", "", "for TLS")
	key := flag.String("key", "", "for TLS")
	flag.Parse()

	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil {
		limit.Cur = limit.Max
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	}
	var shared []*endpoint.ClusterLoadAssignment
	for variant := range variants {
		shared = append(shared, read(*folder, fmt.Sprintf("shared-%d", variant)))
	}
	held, push := linear(shared)
	if *mode == "snapshot" {
		held, push = snapshots(shared, read(*folder, "own"), *nodes)
	}
	options := []grpc.ServerOption{grpc.MaxConcurrentStreams(1000)}
	if *certificate != "" {
		secure, err := credentials.NewServerTLSFromFile(*certificate, *key)
		if err != nil {
			log.Fatal(err)
		}
		options = append(options, grpc.Creds(secure))
	}
	serving := grpc.NewServer(options...)
	discovery.RegisterAggregatedDiscoveryServiceServer(serving, server.NewServer(context.Background(), held, callbacks()))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go func() { log.Fatal(serving.Serve(listener)) }()
	fmt.Printf("{\"port\": %d}\n", listener.Addr().(*net.TCPAddr).Port)
	obey(push)
}
