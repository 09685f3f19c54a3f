package main

// DTM's interface, written from its description: message fields by number, JSON members by name.
// Nothing here is generated from the server's own files, so that a slip there is seen.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

var (
	errFailure = errors.New("FAILURE")
	errOngoing = errors.New("ONGOING")
)

type step struct {
	Action     string `json:"action"`
	Compensate string `json:"compensate,omitempty"`
}

type request struct {
	gid, transType, queryPrepared, customData, reason string
	steps                                             []step
	payloads                                          [][]byte
	extra                                             map[string]string
	wait                                              bool
	timeoutToFail, retryInterval                      int64
}

type branch struct {
	gid, transType, id string
	data               map[string]string
	payload            []byte
}

type progress struct {
	status, branchID, op string
	data                 []byte
}

type workflowState struct {
	status, result, reason string
	steps                  []progress
}

// dtm is the server, over one of its transports.
type dtm interface {
	name() string
	// protocol is how the server calls branches back.
	protocol() string
	newGid() (string, error)
	prepare(request) error
	submit(request) error
	abort(request) error
	register(branch) error
	prepareWorkflow(request) (workflowState, error)
}

// ---- gRPC

type message []byte

func (m *message) text(field protowire.Number, text string) {
	if text != "" {
		m.bytes(field, []byte(text))
	}
}

func (m *message) bytes(field protowire.Number, value []byte) {
	*m = protowire.AppendBytes(protowire.AppendTag(*m, field, protowire.BytesType), value)
}

func (m *message) number(field protowire.Number, value int64) {
	if value != 0 {
		*m = protowire.AppendVarint(protowire.AppendTag(*m, field, protowire.VarintType), uint64(value))
	}
}

func (m *message) texts(field protowire.Number, texts map[string]string) {
	for key, value := range texts {
		var entry message
		entry.text(1, key)
		entry.text(2, value)
		m.bytes(field, entry)
	}
}

// fields calls back with every field that has a length.
func fields(raw []byte, seen func(protowire.Number, []byte)) error {
	for len(raw) > 0 {
		field, kind, n := protowire.ConsumeTag(raw)
		if n < 0 {
			return protowire.ParseError(n)
		}
		raw = raw[n:]
		if kind == protowire.BytesType {
			value, m := protowire.ConsumeBytes(raw)
			if m < 0 {
				return protowire.ParseError(m)
			}
			seen(field, value)
		}
		if n = protowire.ConsumeFieldValue(field, kind, raw); n < 0 {
			return protowire.ParseError(n)
		}
		raw = raw[n:]
	}
	return nil
}

// rawCodec hands messages through as they are.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }
func (rawCodec) Marshal(value any) ([]byte, error) {
	return *value.(*[]byte), nil
}
func (rawCodec) Unmarshal(data []byte, value any) error {
	*value.(*[]byte) = append([]byte(nil), data...)
	return nil
}

type grpcDtm struct{ conn *grpc.ClientConn }

func dialGrpc(address string) (*grpcDtm, error) {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(rawCodec{})))
	return &grpcDtm{conn}, err
}

func (d *grpcDtm) call(method string, in []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var out []byte
	err := d.conn.Invoke(ctx, "/dtmgimp.Dtm/"+method, &in, &out)
	switch status.Code(err) {
	case codes.Aborted:
		err = fmt.Errorf("%w: %s", errFailure, status.Convert(err).Message())
	case codes.FailedPrecondition:
		err = fmt.Errorf("%w: %s", errOngoing, status.Convert(err).Message())
	}
	return out, err
}

func (r request) encode() []byte {
	var m, options message
	m.text(1, r.gid)
	m.text(2, r.transType)
	if r.wait {
		options.number(1, 1)
	}
	options.number(2, r.timeoutToFail)
	options.number(3, r.retryInterval)
	// Retired, and still sent by some SDKs: must be passed over.
	options.text(4, "traceparent")
	m.bytes(3, options)
	m.text(4, r.customData)
	for _, payload := range r.payloads {
		m.bytes(5, payload)
	}
	m.text(6, r.queryPrepared)
	if len(r.steps) > 0 {
		m.text(7, toJSON(r.steps))
	}
	m.texts(8, r.extra)
	m.text(9, r.reason)
	return m
}

func (d *grpcDtm) name() string     { return "grpc" }
func (d *grpcDtm) protocol() string { return "grpc" }

func (d *grpcDtm) newGid() (gid string, err error) {
	out, err := d.call("NewGid", nil)
	if err == nil {
		err = fields(out, func(_ protowire.Number, value []byte) { gid = string(value) })
	}
	return gid, err
}

func (d *grpcDtm) prepare(r request) error { _, err := d.call("Prepare", r.encode()); return err }
func (d *grpcDtm) submit(r request) error  { _, err := d.call("Submit", r.encode()); return err }
func (d *grpcDtm) abort(r request) error   { _, err := d.call("Abort", r.encode()); return err }

func (d *grpcDtm) register(b branch) error {
	var m message
	m.text(1, b.gid)
	m.text(2, b.transType)
	m.text(3, b.id)
	m.texts(5, b.data)
	m.bytes(6, b.payload)
	_, err := d.call("RegisterBranch", m)
	return err
}

func (d *grpcDtm) prepareWorkflow(r request) (state workflowState, err error) {
	out, err := d.call("PrepareWorkflow", r.encode())
	if err != nil {
		return state, err
	}
	err = fields(out, func(field protowire.Number, value []byte) {
		var parts [5]string
		_ = fields(value, func(part protowire.Number, text []byte) { parts[part] = string(text) })
		if field == 1 {
			state.status, state.reason, state.result = parts[2], parts[3], parts[4]
		} else {
			state.steps = append(state.steps, progress{parts[1], parts[3], parts[4], []byte(parts[2])})
		}
	})
	return state, err
}

// ---- HTTP and JSON-RPC

type httpDtm struct {
	base   string
	asRPC  bool
	client http.Client
}

func (d *httpDtm) name() string {
	if d.asRPC {
		return "json-rpc"
	}
	return "http"
}
func (d *httpDtm) protocol() string { return d.name() }

func (d *httpDtm) call(method string, body map[string]any, result any) error {
	path := "/api/dtmsvr/" + method
	var send any = body
	if d.asRPC {
		path = "/api/json-rpc"
		send = map[string]any{"jsonrpc": "2.0", "id": "1", "method": method, "params": body}
	}
	answer, err := d.client.Post(d.base+path, "application/json", bytes.NewReader([]byte(toJSON(send))))
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if d.asRPC {
		var envelope struct {
			Result json.RawMessage
			Error  *struct {
				Code    int
				Message string
			}
		}
		if err := json.Unmarshal(text, &envelope); err != nil {
			return fmt.Errorf("%w in %s", err, text)
		}
		if envelope.Error != nil {
			if envelope.Error.Code == -32901 {
				return fmt.Errorf("%w: %s", errFailure, envelope.Error.Message)
			}
			return errors.New(envelope.Error.Message)
		}
		text = envelope.Result
	} else if err := ofStatus(answer.StatusCode, text); err != nil {
		return err
	}
	if result != nil {
		return json.Unmarshal(text, result)
	}
	return nil
}

func ofStatus(code int, text []byte) error {
	switch code {
	case http.StatusOK:
		return nil
	case http.StatusConflict:
		return fmt.Errorf("%w: %s", errFailure, text)
	case http.StatusTooEarly:
		return fmt.Errorf("%w: %s", errOngoing, text)
	}
	return fmt.Errorf("HTTP status %d: %s", code, text)
}

func (d *httpDtm) body(r request) map[string]any {
	payloads := make([]string, len(r.payloads))
	for i, payload := range r.payloads {
		payloads[i] = string(payload)
	}
	return map[string]any{
		"gid": r.gid, "trans_type": r.transType, "steps": r.steps, "payloads": payloads,
		"query_prepared": r.queryPrepared, "protocol": d.protocol(), "custom_data": r.customData,
		"rollback_reason": r.reason, "req_extra": r.extra, "wait_result": r.wait,
		"timeout_to_fail": r.timeoutToFail, "retry_interval": r.retryInterval,
	}
}

func (d *httpDtm) newGid() (string, error) {
	var found struct{ Gid string }
	if d.asRPC {
		err := d.call("newGid", nil, &found)
		return found.Gid, err
	}
	answer, err := d.client.Get(d.base + "/api/dtmsvr/newGid")
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	err = json.NewDecoder(answer.Body).Decode(&found)
	return found.Gid, err
}

func (d *httpDtm) prepare(r request) error { return d.call("prepare", d.body(r), nil) }
func (d *httpDtm) submit(r request) error  { return d.call("submit", d.body(r), nil) }
func (d *httpDtm) abort(r request) error   { return d.call("abort", d.body(r), nil) }

func (d *httpDtm) register(b branch) error {
	body := map[string]any{
		"gid": b.gid, "trans_type": b.transType, "branch_id": b.id, "data": string(b.payload),
	}
	for key, value := range b.data {
		body[key] = value
	}
	return d.call("registerBranch", body, nil)
}

func (d *httpDtm) prepareWorkflow(r request) (state workflowState, err error) {
	var answer struct {
		Transaction struct {
			Status         string
			Result         string
			RollbackReason string `json:"rollback_reason"`
		}
		Progresses []struct {
			Status   string
			Op       string
			BranchID string `json:"branch_id"`
			BinData  []byte `json:"bin_data"`
		}
	}
	err = d.call("prepareWorkflow", d.body(r), &answer)
	state.status, state.result = answer.Transaction.Status, answer.Transaction.Result
	state.reason = answer.Transaction.RollbackReason
	for _, p := range answer.Progresses {
		state.steps = append(state.steps, progress{p.Status, p.BranchID, p.Op, p.BinData})
	}
	return state, err
}

func toJSON(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return string(text)
}
