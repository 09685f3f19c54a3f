package main

// A service with a database, reached over gRPC, HTTP and JSON-RPC. Every operation runs behind a
// barrier, as DTM's SDKs have it: a row for each (branch, operation), written with the business.

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

const schema = `
create table account (name varchar(64) primary key, balance bigint not null, held bigint not null default 0);
create table barrier (
  id bigint primary key auto_increment,
  trans_type varchar(45) not null, gid varchar(128) not null, branch_id varchar(128) not null,
  op varchar(45) not null, barrier_id varchar(45) not null, reason varchar(45) not null,
  unique key (gid, branch_id, op, barrier_id)
)`

// ids is what the server says of a branch with every call.
type ids struct{ gid, transType, branchID, op string }

// order is a branch's payload.
type order struct {
	Account string `json:"account"`
	Amount  int64  `json:"amount"`
	// Nested asks the branch to open one of its own.
	Nested string `json:"nested,omitempty"`
	Phase2 string `json:"phase2,omitempty"`
}

type bank struct {
	db *sql.DB
	// xaDB never uses a connection twice: one that holds a prepared transaction is closed.
	xaDB       *sql.DB
	http, grpc string
	mu         sync.Mutex
	resumes    map[string]func(gid string) error
}

// url returns where a method of the bank is, as a transport's SDK writes it.
func (b *bank) url(protocol, method string) string {
	switch protocol {
	case "grpc":
		return b.grpc + "/bank.Bank/" + method
	case "json-rpc":
		return "http://" + b.http + "/rpc?method=" + method
	}
	return "http://" + b.http + "/" + method
}

func (b *bank) serve() error {
	grpcListener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	httpListener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	b.grpc, b.http = grpcListener.Addr().String(), httpListener.Addr().String()
	server := grpc.NewServer(grpc.ForceServerCodec(rawCodec{}), grpc.UnknownServiceHandler(b.serveGrpc))
	go func() { _ = server.Serve(grpcListener) }()
	go func() { _ = http.Serve(httpListener, http.HandlerFunc(b.serveHTTP)) }()
	return nil
}

func (b *bank) serveGrpc(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	var body []byte
	if err := stream.RecvMsg(&body); err != nil {
		return err
	}
	md, _ := metadata.FromIncomingContext(stream.Context())
	first := func(key string) string {
		if values := md.Get(key); len(values) > 0 {
			return values[0]
		}
		return ""
	}
	who := ids{first("dtm-gid"), first("dtm-trans_type"), first("dtm-branch_id"), first("dtm-op")}
	if method == "/workflow.Workflow/Execute" {
		// A callback's input is wrapped in a message.
		var input []byte
		if err := fields(body, func(_ protowire.Number, value []byte) { input = value }); err != nil {
			return status.Error(codes.InvalidArgument, err.Error())
		}
		body = input
	}
	err := b.run(method[strings.LastIndex(method, "/")+1:], who, body)
	switch {
	case errors.Is(err, errFailure):
		return status.Error(codes.Aborted, err.Error())
	case errors.Is(err, errOngoing):
		return status.Error(codes.FailedPrecondition, err.Error())
	case err != nil:
		return status.Error(codes.Unknown, err.Error())
	}
	empty := []byte{}
	return stream.SendMsg(&empty)
}

func (b *bank) serveHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	query := r.URL.Query()
	who := ids{query.Get("gid"), query.Get("trans_type"), query.Get("branch_id"), query.Get("op")}
	method := strings.TrimPrefix(r.URL.Path, "/")
	var envelope struct {
		ID     json.RawMessage `json:"id"`
		Method string          `json:"method"`
		Params json.RawMessage `json:"params"`
	}
	isRPC := method == "rpc"
	if isRPC && err == nil {
		if err = json.Unmarshal(body, &envelope); err == nil {
			var params struct {
				Gid       string `json:"gid"`
				TransType string `json:"trans_type"`
				BranchID  string `json:"branch_id"`
				Op        string `json:"op"`
			}
			err = json.Unmarshal(envelope.Params, &params)
			who = ids{params.Gid, params.TransType, params.BranchID, params.Op}
			method, body = envelope.Method, envelope.Params
		}
	}
	if err == nil {
		err = b.run(method, who, body)
	}
	code, rpcCode := http.StatusOK, 0
	switch {
	case errors.Is(err, errFailure):
		code, rpcCode = http.StatusConflict, -32901
	case errors.Is(err, errOngoing):
		code, rpcCode = http.StatusTooEarly, -32902
	case err != nil:
		code, rpcCode = http.StatusInternalServerError, -32603
	}
	answer := map[string]any{"jsonrpc": "2.0", "id": envelope.ID, "result": map[string]any{}}
	if rpcCode != 0 {
		// Without the words that the rules of HTTP would find.
		answer["error"] = map[string]any{"code": rpcCode, "message": "no"}
	}
	if isRPC {
		_, _ = io.WriteString(w, toJSON(answer))
		return
	}
	w.WriteHeader(code)
	_, _ = fmt.Fprintf(w, `{"message":%q}`, fmt.Sprint(err))
}

// run does what a method is for.
func (b *bank) run(method string, who ids, body []byte) error {
	if method == "Execute" || method == "resume" {
		b.mu.Lock()
		resume := b.resumes[who.op]
		b.mu.Unlock()
		if resume == nil {
			return fmt.Errorf("no workflow %q", who.op)
		}
		return resume(who.gid)
	}
	if method == "query" {
		return b.query(who)
	}
	if method == "xa" && who.op != "action" {
		return b.finishXa(who)
	}
	var o order
	if err := json.Unmarshal(body, &o); err != nil {
		return err
	}
	return b.withBarrier(who, func(tx *sql.Tx) error {
		switch method {
		case "out", "inUndo":
			return change(tx, "balance = balance - ?", o)
		case "in", "outUndo":
			return change(tx, "balance = balance + ?", o)
		case "hold":
			return change(tx, "held = held + ?", o)
		case "unhold":
			return change(tx, "held = held - ?", o)
		case "spend":
			return change(tx, "held = held - ?, balance = balance - "+fmt.Sprint(o.Amount), o)
		case "nothing":
			return nil
		case "refuse":
			return fmt.Errorf("%w: the account is closed", errFailure)
		}
		return fmt.Errorf("no method %q", method)
	})
}

func change(tx *sql.Tx, how string, o order) error {
	_, err := tx.Exec("update account set "+how+" where name = ?", o.Amount, o.Account)
	return err
}

// mark writes a barrier row; false if it was there.
func mark(tx *sql.Tx, who ids, op, barrierID, reason string) (bool, error) {
	done, err := tx.Exec("insert ignore into barrier (trans_type, gid, branch_id, op, barrier_id, reason) values (?,?,?,?,?,?)",
		who.transType, who.gid, who.branchID, op, barrierID, reason)
	if err != nil {
		return false, err
	}
	rows, err := done.RowsAffected()
	return rows > 0, err
}

func (b *bank) withBarrier(who ids, business func(*sql.Tx) error) error {
	tx, err := b.db.Begin()
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	undoes := map[string]string{"cancel": "try", "compensate": "action"}[who.op]
	never := false
	if undoes != "" {
		if never, err = mark(tx, who, undoes, "01", who.op); err != nil {
			return err
		}
	}
	first, err := mark(tx, who, who.op, "01", who.op)
	if err != nil {
		return err
	}
	// What never ran needs no undoing, and what ran once does not run again.
	if first && !never {
		if err := business(tx); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// send runs a message's local transaction, with the row by which it is known.
func (b *bank) send(gid string, o order) error {
	tx, err := b.db.Begin()
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := mark(tx, ids{gid, "msg", "00", "msg"}, "msg", "01", "msg"); err != nil {
		return err
	}
	if err := change(tx, "balance = balance - ?", o); err != nil {
		return err
	}
	return tx.Commit()
}

// query answers whether a message's local transaction was committed; if not, it never will be.
func (b *bank) query(who ids) error {
	tx, err := b.db.Begin()
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := mark(tx, who, "msg", "01", "rollback"); err != nil {
		return err
	}
	var reason string
	row := tx.QueryRow("select reason from barrier where gid = ? and branch_id = ? and op = 'msg'", who.gid, who.branchID)
	if err := row.Scan(&reason); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	if reason == "rollback" {
		return errFailure
	}
	return nil
}

// startXa does an xa branch's work, registers the branch, and leaves it prepared.
func (b *bank) startXa(d dtm, gid, branchID string, o order) (err error) {
	ctx := context.Background()
	conn, err := b.xaDB.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	xid := fmt.Sprintf("'%s-%s'", gid, branchID)
	run := func(text string, args ...any) {
		if err == nil {
			_, err = conn.ExecContext(ctx, text, args...)
		}
	}
	run("xa start " + xid)
	run("insert ignore into barrier (trans_type, gid, branch_id, op, barrier_id, reason) values ('xa',?,?,'action','01','action')", gid, branchID)
	run("update account set balance = balance + ? where name = ?", o.Amount, o.Account)
	if err == nil {
		err = d.register(branch{gid: gid, transType: "xa", id: branchID,
			data: map[string]string{"url": b.url(d.protocol(), "xa")}})
	}
	failed := err
	err = nil
	run("xa end " + xid)
	if failed != nil {
		run("xa rollback " + xid)
		return failed
	}
	run("xa prepare " + xid)
	return err
}

func (b *bank) finishXa(who ids) error {
	_, err := b.xaDB.Exec(fmt.Sprintf("xa %s '%s-%s'", who.op, who.gid, who.branchID))
	if err != nil && strings.Contains(err.Error(), "XAER_NOTA") {
		err = nil
	}
	return err
}

func (b *bank) balance(account string) (balance, held int64, err error) {
	err = b.db.QueryRow("select balance, held from account where name = ?", account).Scan(&balance, &held)
	return balance, held, err
}
