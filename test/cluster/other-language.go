// A client that shares no code with the project: protoc's classes and gRPC for Go.
//
// usage: other-language ADDRESS
//
// Prints `stop` when the node is to be stopped gently, reads a line, and prints `start` when it is
// to be started again.
package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	pb "quorate/pb"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// The arguments of the failure are what was seen.
func check(holds bool, what string, seen ...interface{}) {
	if holds {
		return
	}
	fmt.Fprintln(os.Stderr, append([]interface{}{what}, seen...)...)
	os.Exit(1)
}

func soon() context.Context {
	limited, _ := context.WithTimeout(context.Background(), 20*time.Second)
	return limited
}

// One of each kind, and what they bring.
func unary(kv pb.KVClient) {
	put, err := kv.Put(soon(), &pb.PutRequest{Key: []byte("k{go}"), Value: []byte("\x00\xff value")})
	check(err == nil && put.Applied, "put", put, err)
	got, err := kv.Get(soon(), &pb.GetRequest{Key: []byte("k{go}")})
	check(err == nil && string(got.Kv.Value) == "\x00\xff value", "get", got, err)
	check(got.Kv.Revision == put.Revision, "revision", got, put)
	sum, err := kv.Increment(soon(), &pb.IncrementRequest{Key: []byte("n{go}"), Delta: -7})
	check(err == nil && sum.Value == -7, "increment", sum, err)
	gone, err := kv.Delete(soon(), &pb.DeleteRequest{Key: []byte("k{go}"), ReturnPrevious: true})
	check(err == nil && gone.Existed && len(gone.Previous.Value) == 8, "delete", gone, err)

	large := &pb.PutRequest{Key: []byte("large"), Value: make([]byte, 1<<20)}
	_, err = kv.Put(soon(), large)
	check(err == nil, "1 MiB", err)
	got, err = kv.Get(soon(), &pb.GetRequest{Key: []byte("large")})
	check(err == nil && len(got.Kv.Value) == 1<<20, "1 MiB back", err)
	for _, size := range []int{1<<20 + 1, 6 << 20} {
		large.Value = make([]byte, size)
		_, err = kv.Put(soon(), large)
		said := status.Convert(err)
		check(said.Code() == codes.InvalidArgument && len(said.Details()) == 1, "too large", err)
		detail := said.Details()[0].(*pb.ErrorDetail)
		check(detail.Code == "KV_TOO_LARGE" && detail.Size > detail.Limit, "its detail", detail)
	}
	_, err = kv.Put(soon(), &pb.PutRequest{Key: []byte("z")}, grpc.UseCompressor(gzip.Name))
	check(status.Code(err) == codes.Unimplemented, "compressed", err)
	odd := metadata.AppendToOutgoingContext(soon(), "x-bin", "\x00\xff", "x-blanks", " a ", "x-none", "")
	_, err = kv.Get(odd, &pb.GetRequest{Key: []byte("large")})
	check(err == nil, "fields of its own", err)
}

// Many at once on one connection, half of which are given up midway.
func manyAtOnce(kv pb.KVClient) {
	var all sync.WaitGroup
	for worker := 0; worker < 64; worker++ {
		all.Add(1)
		go func(worker int) {
			defer all.Done()
			key := []byte(fmt.Sprint("w", worker))
			for turn := 0; turn < 20; turn++ {
				value := bytes.Repeat([]byte(fmt.Sprint(turn)), 1000)
				_, err := kv.Put(soon(), &pb.PutRequest{Key: key, Value: value})
				check(err == nil, "one of many", err)
				got, err := kv.Get(soon(), &pb.GetRequest{Key: key})
				check(err == nil && bytes.Equal(got.Kv.Value, value), "its value", err)
				if turn >= 5 {
					continue
				}
				brief, cancel := context.WithTimeout(context.Background(), time.Duration(worker*50)*time.Microsecond)
				_, err = kv.Put(brief, &pb.PutRequest{Key: []byte("given up"), Value: value})
				code := status.Code(err)
				check(err == nil || code == codes.DeadlineExceeded, "given up", err)
				cancel()
			}
		}(worker)
	}
	all.Wait()
}

func batch(id uint64, size int) *pb.BatchRequest {
	request := &pb.BatchRequest{Id: id}
	for key := 0; key < 10; key++ {
		put := &pb.PutRequest{Key: []byte(fmt.Sprintf("p%d-%d", id, key)), Value: make([]byte, size)}
		request.Operations = append(request.Operations, &pb.Operation{Operation: &pb.Operation_Put{Put: put}})
	}
	return request
}

// Streams both ways; what is scanned is more than the window of 64 KiB, and is read slowly.
func streams(kv pb.KVClient) {
	pipeline, err := kv.Pipeline(soon())
	check(err == nil, "pipeline", err)
	go func() {
		for id := uint64(0); id < 20; id++ {
			pipeline.Send(batch(id, 5000))
		}
		pipeline.CloseSend()
	}()
	replies := 0
	for {
		reply, err := pipeline.Recv()
		if err == io.EOF {
			break
		}
		check(err == nil && len(reply.Results) == 10, "reply", reply, err)
		replies++
	}
	check(replies == 20, "replies", replies)
	pages, err := kv.Scan(soon(), &pb.ScanRequest{Prefix: []byte("p"), PageBytes: 100_000})
	keys := 0
	for err == nil {
		var page *pb.ScanReply
		if page, err = pages.Recv(); err == nil {
			keys += len(page.Kvs)
			time.Sleep(20 * time.Millisecond)
		}
	}
	check(err == io.EOF && keys == 200, "scan", keys, err)
}

// A call in progress when the node stops is unavailable, and so are others until it is back.
func restart(kv pb.KVClient, health grpc_health_v1.HealthClient) {
	watch, err := health.Watch(soon(), &grpc_health_v1.HealthCheckRequest{})
	check(err == nil, "watch", err)
	_, err = watch.Recv()
	check(err == nil, "first state", err)
	pipeline, err := kv.Pipeline(soon())
	check(err == nil, "pipeline", err)
	check(pipeline.Send(batch(1, 1)) == nil, "batch")
	_, err = pipeline.Recv()
	check(err == nil, "reply", err)
	fmt.Println("stop")
	_, err = pipeline.Recv()
	check(status.Code(err) == codes.Unavailable, "pipeline of a node that stops", err)
	for err = nil; err == nil; {
		_, err = watch.Recv()
	}
	check(status.Code(err) == codes.Unavailable, "watch of a node that stops", err)
	bufio.NewReader(os.Stdin).ReadString('\n')
	_, err = kv.Get(soon(), &pb.GetRequest{Key: []byte("large")})
	check(status.Code(err) == codes.Unavailable, "get of a node that has stopped", err)
	fmt.Println("start")
	for try := 0; try < 100; try++ {
		_, err = kv.Get(soon(), &pb.GetRequest{Key: []byte("large")}, grpc.WaitForReady(true))
		if err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	check(false, "get of a node that is back", err)
}

func main() {
	connection, err := grpc.Dial(os.Args[1], grpc.WithInsecure(), grpc.WithInitialWindowSize(1<<16))
	check(err == nil, "dial", err)
	kv := pb.NewKVClient(connection)
	unary(kv)
	manyAtOnce(kv)
	streams(kv)
	err = connection.Invoke(soon(), "/quorate.v1.KV/Nonsense", &pb.GetRequest{}, &pb.GetReply{})
	check(status.Code(err) == codes.Unimplemented, "a method that there is not", err)
	health := grpc_health_v1.NewHealthClient(connection)
	state, err := health.Check(soon(), &grpc_health_v1.HealthCheckRequest{})
	check(err == nil && state.Status == grpc_health_v1.HealthCheckResponse_SERVING, "health", state, err)
	restart(kv, health)
	fmt.Println("all well")
}
