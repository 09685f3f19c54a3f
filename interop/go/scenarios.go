package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// stage is what a scenario works with: a server over one transport, the bank, accounts of its own.
type stage struct {
	dtm
	bank       *bank
	gid        string
	from, into string
}

const start = 10_000

type scenario struct {
	name string
	run  func(*stage) error
}

// workflowName is left out over JSON-RPC, where DTM has no workflows.
const workflowName = "workflow resumed after a failure"

var scenarios = []scenario{
	{"saga", saga},
	{"saga rolled back", sagaRolledBack},
	{"nested tcc", func(s *stage) error { return tcc(s, true) }},
	{"nested tcc cancelled", func(s *stage) error { return tcc(s, false) }},
	{"message with barrier", message1},
	{"message whose sender is lost", func(s *stage) error { return messageLost(s, true) }},
	{"message that was never sent", func(s *stage) error { return messageLost(s, false) }},
	{"xa", func(s *stage) error { return xa(s, true) }},
	{"xa rolled back", func(s *stage) error { return xa(s, false) }},
	{"refused twice", refused},
	{workflowName, workflow},
}

func (s *stage) url(method string) string { return s.bank.url(s.protocol(), method) }

func (s *stage) pay(account string) []byte {
	return []byte(toJSON(order{Account: account, Amount: 30}))
}

// moved checks what has become of the two accounts.
func (s *stage) moved(amount int64) error {
	for account, want := range map[string]int64{s.from: start - amount, s.into: start + amount} {
		balance, held, err := s.bank.balance(account)
		if err != nil {
			return err
		}
		if balance != want || held != 0 {
			return fmt.Errorf("%s has %d (%d held), not %d", account, balance, held, want)
		}
	}
	return nil
}

// eventually waits for what the server does by itself.
func eventually(check func() error) error {
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := check()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func saga(s *stage) error {
	r := request{gid: s.gid, transType: "saga", wait: true,
		steps:    []step{{s.url("out"), s.url("outUndo")}, {s.url("in"), s.url("inUndo")}},
		payloads: [][]byte{s.pay(s.from), s.pay(s.into)}}
	return errors.Join(s.submit(r), s.moved(30))
}

func sagaRolledBack(s *stage) error {
	r := request{gid: s.gid, transType: "saga", wait: true,
		steps:    []step{{s.url("out"), s.url("outUndo")}, {s.url("refuse"), s.url("nothing")}},
		payloads: [][]byte{s.pay(s.from), s.pay(s.into)}}
	if err := s.submit(r); !errors.Is(err, errFailure) {
		return fmt.Errorf("not FAILURE: %v", err)
	}
	return s.moved(0)
}

// try registers a branch and does its first part, as an SDK does.
func (s *stage) try(id, account, confirm, cancel, try string) error {
	b := branch{gid: s.gid, transType: "tcc", id: id, payload: s.pay(account),
		data: map[string]string{"confirm": s.url(confirm), "cancel": s.url(cancel)}}
	if err := s.register(b); err != nil {
		return err
	}
	return s.bank.run(try, ids{s.gid, "tcc", id, "try"}, b.payload)
}

func tcc(s *stage, confirm bool) error {
	r := request{gid: s.gid, transType: "tcc", wait: true}
	err := errors.Join(s.prepare(r), s.try("01", s.from, "spend", "unhold", "hold"),
		// The branch 01 opens one of its own.
		s.try("0101", s.into, "in", "nothing", "nothing"))
	if err != nil {
		return err
	}
	if confirm {
		return errors.Join(s.submit(r), s.moved(30))
	}
	r.reason = "changed my mind"
	if err := errors.Join(s.abort(r), s.moved(0)); err != nil {
		return err
	}
	if err := s.try("02", s.from, "spend", "unhold", "hold"); !errors.Is(err, errFailure) {
		return fmt.Errorf("a branch was registered after the abort: %v", err)
	}
	return nil
}

func message1(s *stage) error {
	r := request{gid: s.gid, transType: "msg", wait: true, queryPrepared: s.url("query"),
		steps: []step{{Action: s.url("in")}}, payloads: [][]byte{s.pay(s.into)}}
	sent := s.prepare(r)
	if sent == nil {
		sent = s.bank.send(s.gid, order{Account: s.from, Amount: 30})
	}
	return errors.Join(sent, s.submit(r), s.moved(30))
}

func messageLost(s *stage, committed bool) error {
	r := request{gid: s.gid, transType: "msg", queryPrepared: s.url("query"), timeoutToFail: 1,
		retryInterval: 1, steps: []step{{Action: s.url("in")}}, payloads: [][]byte{s.pay(s.into)}}
	if err := s.prepare(r); err != nil {
		return err
	}
	if committed {
		if err := s.bank.send(s.gid, order{Account: s.from, Amount: 30}); err != nil {
			return err
		}
		return eventually(func() error { return s.moved(30) })
	}
	return eventually(func() error {
		// While it is prepared this is a repeat, which is allowed.
		if err := s.prepare(r); !errors.Is(err, errFailure) {
			return fmt.Errorf("it is still prepared: %v", err)
		}
		return s.moved(0)
	})
}

func xa(s *stage, commit bool) error {
	r := request{gid: s.gid, transType: "xa", wait: true}
	err := errors.Join(s.prepare(r),
		s.bank.startXa(s, s.gid, "01", order{Account: s.from, Amount: -30}),
		s.bank.startXa(s, s.gid, "02", order{Account: s.into, Amount: 30}))
	if err != nil {
		return err
	}
	if commit {
		return errors.Join(s.submit(r), s.moved(30))
	}
	return errors.Join(s.abort(r), s.moved(0))
}

// workflow does one step and stops; the server has it resumed, which fails once.
func workflow(s *stage) error {
	name := "move-" + s.gid
	callback := s.url("resume")
	if s.protocol() == "grpc" {
		callback = s.bank.grpc + "/workflow.Workflow/Execute"
	}
	data := base64.StdEncoding.EncodeToString([]byte("input"))
	r := request{gid: s.gid, transType: "workflow", queryPrepared: callback, retryInterval: 1,
		customData: toJSON(map[string]string{"name": name, "data": data})}
	var runs, outs atomic.Int32
	resume := func(gid string) error {
		state, err := s.prepareWorkflow(r)
		if err != nil {
			return err
		}
		if runs.Add(1) == 2 {
			return errors.New("the database is down")
		}
		if len(state.steps) == 0 {
			outs.Add(1)
			if err := s.bank.run("out", ids{gid, "workflow", "01", "action"}, s.pay(s.from)); err != nil {
				return err
			}
			return s.register(branch{gid: gid, transType: "workflow", id: "01", payload: []byte("done"),
				data: map[string]string{"op": "action", "status": "succeed"}})
		}
		if done := state.steps[0]; done.branchID != "01" || done.op != "action" ||
			done.status != "succeed" || string(done.data) != "done" {
			return fmt.Errorf("the recorded step is %+v", done)
		}
		if err := s.bank.run("in", ids{gid, "workflow", "02", "action"}, s.pay(s.into)); err != nil {
			return err
		}
		return s.submit(request{gid: gid, transType: "workflow",
			extra: map[string]string{"status": "succeed", "result": "b2s="}})
	}
	s.bank.mu.Lock()
	s.bank.resumes[name] = resume
	s.bank.mu.Unlock()
	if err := resume(s.gid); err != nil {
		return err
	}
	// Not by asking for its progress: that says that somebody is at work, and puts the callback off.
	if err := eventually(func() error { return s.moved(30) }); err != nil {
		return fmt.Errorf("%w after %d runs", err, runs.Load())
	}
	return eventually(func() error {
		state, err := s.prepareWorkflow(r)
		if err != nil {
			return err
		}
		if state.status != "succeed" || state.result != "b2s=" || outs.Load() != 1 || runs.Load() < 3 {
			return fmt.Errorf("%+v after %d runs", state, runs.Load())
		}
		return s.moved(30)
	})
}

// refused checks that the server says no in the transport's own way.
func refused(s *stage) error {
	r := request{gid: s.gid, transType: "saga", wait: true,
		steps: []step{{Action: s.url("nothing")}}, payloads: [][]byte{s.pay(s.from)}}
	if err := s.submit(r); err != nil {
		return err
	}
	if err := s.submit(r); !errors.Is(err, errFailure) {
		return fmt.Errorf("submitted twice: %v", err)
	}
	err := s.submit(request{gid: s.gid})
	if err == nil || errors.Is(err, errOngoing) {
		return fmt.Errorf("a gid alone was accepted: %v", err)
	}
	fresh, err := s.newGid()
	if err == nil && len(fresh) != 22 {
		err = fmt.Errorf("the new gid is %q", fresh)
	}
	return err
}
