// Command interop-go-sdk runs services and clients on DTM's published SDK for Go against a dtmd
// and a MariaDB given by address.
//
//	interop-go-sdk -db HOST:PORT -dtm URL -dtm-grpc HOST:PORT    plays every scenario
//	interop-go-sdk -db HOST:PORT -serve                          serves its bank until its input ends
package main

import (
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/dtm-labs/client/workflow"
	"github.com/dtm-labs/logger"
	"google.golang.org/grpc"
)

func main() {
	db := flag.String("db", "", "host:port of a MySQL that root may use")
	dtm := flag.String("dtm", "", "http://host:port/api/dtmsvr")
	dtmGrpc := flag.String("dtm-grpc", "", "host:port of the same server's gRPC interface")
	serve := flag.Bool("serve", false, "serve the bank until the input ends, and do nothing else")
	flag.Parse()
	// The SDK tells of every refusal, and half of the scenarios are about refusals.
	logger.InitLog("fatal")
	failed, err := run(*db, *dtm, *dtmGrpc, *serve)
	if err != nil {
		fmt.Println("interop:", err)
	}
	if err != nil || failed > 0 {
		os.Exit(1)
	}
}

func run(db, dtm, dtmGrpc string, onlyServe bool) (failed int, err error) {
	b, err := openBank(db)
	if err != nil {
		return 0, err
	}
	url, err := serveHTTP(b)
	if err != nil {
		return 0, err
	}
	if onlyServe {
		fmt.Println("listening on " + url)
		_, err = io.Copy(io.Discard, os.Stdin)
		return 0, err
	}
	address, err := serveGrpc(b, func(server *grpc.Server, address string) {
		workflow.InitGrpc(dtmGrpc, address, server)
	})
	if err != nil {
		return 0, err
	}
	// A process has one protocol for its workflows, so the two take turns.
	p := &play{bank: b, dtm: dtm}
	if err := p.all(&overGrpc{dtm: dtmGrpc, bank: address}); err != nil {
		return 0, err
	}
	workflow.InitHTTP(dtm, url+"/workflow")
	if err := p.all(&overHTTP{dtm: dtm, bank: url}); err != nil {
		return 0, err
	}
	fmt.Printf("interop with dtm-labs/client for Go: %d of %d ok\n", p.played-p.failed, p.played)
	return p.failed, nil
}
