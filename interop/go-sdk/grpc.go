package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"net"
	"strings"

	"github.com/dtm-labs/client/dtmcli"
	"github.com/dtm-labs/client/dtmgrpc"
	"github.com/dtm-labs/client/dtmgrpc/dtmgimp"
	"github.com/dtm-labs/client/dtmgrpc/dtmgpb"
	"github.com/dtm-labs/client/workflow"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// service is the bank's name; its messages are texts, so that no code need be generated.
const service = "bank.Bank"

// overGrpc is the package dtmgrpc, for a server and a bank by their addresses.
type overGrpc struct{ dtm, bank string }

func (g *overGrpc) name() string { return "grpc" }

func (g *overGrpc) newGid() string { return dtmgrpc.MustGenGid(g.dtm) }

func (g *overGrpc) at(operation string) string { return g.bank + "/" + service + "/" + operation }

func (g *overGrpc) isFailure(err error) bool {
	return errors.Is(dtmgrpc.GrpcError2DtmError(err), dtmcli.ErrFailure)
}

func payload(o order) *wrapperspb.StringValue {
	text, _ := json.Marshal(o)
	return wrapperspb.String(string(text))
}

func (g *overGrpc) saga(gid string, custom func(*dtmcli.Saga), steps ...step) error {
	saga := dtmgrpc.NewSagaGrpc(g.dtm, gid)
	for _, one := range steps {
		saga.Add(g.at(one.action), g.at(one.undo), payload(one.order))
	}
	custom(&saga.Saga)
	return saga.Submit()
}

func (g *overGrpc) message(gid string, custom func(*dtmcli.Msg), to string, o order) message {
	msg := dtmgrpc.NewMsgGrpc(g.dtm, gid)
	if topic, ok := strings.CutPrefix(to, topicPrefix); ok {
		msg.AddTopic(topic, payload(o))
	} else {
		msg.Add(g.at(to), payload(o))
	}
	custom(&msg.Msg)
	return msg
}

func (g *overGrpc) subscribe(topic, url string) error {
	request := dtmgpb.DtmTopicRequest{Topic: topic, URL: url}
	_, err := dtmgimp.MustGetDtmClient(g.dtm).Subscribe(context.Background(), &request)
	return err
}

func (g *overGrpc) tcc(gid string, business func(tccBranch) error) error {
	wait := func(tcc *dtmgrpc.TccGrpc) { tcc.WaitResult = true }
	return dtmgrpc.TccGlobalTransaction2(g.dtm, gid, wait, func(tcc *dtmgrpc.TccGrpc) error {
		return business(func(o order, try, confirm, cancel string) error {
			var reply wrapperspb.StringValue
			return tcc.CallBranch(payload(o), g.at(try), g.at(confirm), g.at(cancel), &reply)
		})
	})
}

func (g *overGrpc) xa(gid string, business func(xaBranch) error) error {
	wait := func(xa *dtmgrpc.XaGrpc) { xa.WaitResult = true }
	return dtmgrpc.XaGlobalTransaction2(g.dtm, gid, wait, func(xa *dtmgrpc.XaGrpc) error {
		return business(func(o order, operation string) error {
			var reply wrapperspb.StringValue
			return xa.CallBranch(payload(o), g.at(operation), &reply)
		})
	})
}

// step calls the bank as an application does, by a connection that the workflow listens on.
func (g *overGrpc) step(wf *workflow.Workflow, operation string, o order) error {
	conn, err := grpc.Dial(g.bank, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(workflow.Interceptor))
	if err != nil {
		return err
	}
	defer conn.Close()
	var reply wrapperspb.StringValue
	return conn.Invoke(wf.Context, "/"+service+"/"+operation, payload(o), &reply)
}

// serveGrpc serves the bank and what else is registered; returns the address.
func serveGrpc(b *bank, register func(server *grpc.Server, address string)) (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	address := listener.Addr().String()
	description := grpc.ServiceDesc{ServiceName: service, HandlerType: (*any)(nil)}
	for name := range operations {
		description.Methods = append(description.Methods, method(name, address))
	}
	server := grpc.NewServer()
	server.RegisterService(&description, b)
	register(server, address)
	go func() { _ = server.Serve(listener) }()
	return address, nil
}

func method(name, address string) grpc.MethodDesc {
	handle := func(b any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		var request wrapperspb.StringValue
		if err := decode(&request); err != nil {
			return nil, err
		}
		err := b.(*bank).run(name, &grpcCall{ctx, address}, []byte(request.Value))
		return wrapperspb.String(name), dtmgrpc.DtmError2GrpcError(err)
	}
	return grpc.MethodDesc{MethodName: name, Handler: handle}
}

// grpcCall is a branch call over gRPC.
type grpcCall struct {
	context context.Context
	address string
}

func (c *grpcCall) header(name string) string { return dtmgimp.GetMetaFromContext(c.context, name) }

func (c *grpcCall) barrier() (*dtmcli.BranchBarrier, error) {
	return dtmgrpc.BarrierFromGrpc(c.context)
}

func (c *grpcCall) nested(o order, try, confirm, cancel string) error {
	tcc, err := dtmgrpc.TccFromGrpc(c.context)
	if err != nil {
		return err
	}
	var reply wrapperspb.StringValue
	here := (&overGrpc{bank: c.address}).at
	return tcc.CallBranch(payload(o), here(try), here(confirm), here(cancel), &reply)
}

func (c *grpcCall) xa(conf dtmcli.DBConf, business func(*sql.DB) error) error {
	return dtmgrpc.XaLocalTransaction(c.context, conf, func(db *sql.DB, _ *dtmgrpc.XaGrpc) error {
		return business(db)
	})
}
