// A gRPC client that finds its servers by xDS: told on its standard input what to do, it says in JSON what came of it.
//
// In: the environment's GRPC_XDS_BOOTSTRAP, and lines `call TARGET COUNT`. Out: one line for each,
// {"answers": {"backend": 3}, "errors": ["…"]}. Never: a call of more than two seconds.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/xds"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	method      = "/test.Echo/Who"
	callTimeout = 2 * time.Second
)

type report struct {
	Answers map[string]int `json:"answers"`
	Errors  []string       `json:"errors"`
}

// One channel for each target lasts as long as the client, as a service's would.
var channels = map[string]*grpc.ClientConn{}

func channel(target string) (*grpc.ClientConn, error) {
	if known, ok := channels[target]; ok {
		return known, nil
	}
	// These are the credentials for the backends; those for the control plane are in the bootstrap.
	made, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err == nil {
		channels[target] = made
	}
	return made, err
}

func call(target string, count int) report {
	result := report{Answers: map[string]int{}, Errors: []string{}}
	connection, err := channel(target)
	if err != nil {
		result.Errors = append(result.Errors, err.Error())
		return result
	}
	for range count {
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		answer := &wrapperspb.StringValue{}
		if err := connection.Invoke(ctx, method, &emptypb.Empty{}, answer); err != nil {
			result.Errors = append(result.Errors, err.Error())
		} else {
			result.Answers[answer.Value]++
		}
		cancel()
	}
	return result
}

func main() {
	encoder := json.NewEncoder(os.Stdout)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var target string
		var count int
		if _, err := fmt.Sscanf(lines.Text(), "call %s %d", &target, &count); err != nil {
			fmt.Fprintf(os.Stderr, "not a command: %q\n", lines.Text())
			os.Exit(2)
		}
		if err := encoder.Encode(call(target, count)); err != nil {
			os.Exit(1)
		}
	}
}
