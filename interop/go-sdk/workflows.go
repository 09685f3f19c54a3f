package main

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"

	"github.com/dtm-labs/client/dtmcli"
	"github.com/dtm-labs/client/workflow"
)

type flow = func(*stage, *workflow.Workflow) error

// input is no text, so that one that is taken for a text is noticed.
var input = []byte{0, 0xff, 'i', 'n'}

// register makes a scenario's workflow known by its gid; its result is its input.
func (s *stage) register(do flow) error {
	handle := func(wf *workflow.Workflow, data []byte) ([]byte, error) {
		s.runs.Add(1)
		return data, do(s, wf)
	}
	return workflow.Register2(s.gid, handle, func(wf *workflow.Workflow) { wf.RetryInterval = 2 })
}

// execute runs the workflow, or fetches the result of one that has ended.
func (s *stage) execute() error {
	result, err := workflow.Execute2(s.gid, s.gid, input)
	if err == nil && !bytes.Equal(result, input) {
		return fmt.Errorf("the result is %q, not %q", result, input)
	}
	return err
}

// fetch executes what has ended, which the server's record must answer.
func (s *stage) fetch() error {
	runs := s.runs.Load()
	err := s.execute()
	if s.runs.Load() != runs {
		return errors.New("a workflow that had ended ran again")
	}
	return err
}

func workflowDone(s *stage) error {
	if err := s.ends(s.execute(), "succeed", sum); err != nil {
		return err
	}
	return s.fetch()
}

func workflowRolledBack(s *stage) error {
	for _, execute := range []func() error{s.execute, s.fetch} {
		if err := execute(); !errors.Is(err, dtmcli.ErrFailure) {
			return fmt.Errorf("not rolled back: %v", err)
		}
	}
	return s.ends(nil, "failed", 0)
}

// workflowResumed is left to the server after its first run.
func workflowResumed(s *stage) error {
	if err := s.execute(); !errors.Is(err, errBroken) {
		return fmt.Errorf("it did not break: %v", err)
	}
	if err := s.ends(nil, "succeed", sum); err != nil {
		return err
	}
	return s.did(s.fetch(), "out in")
}

// sagaFlow calls the bank twice; what was done is undone if the second call is refused.
func sagaFlow(second string) flow {
	return func(s *stage, wf *workflow.Workflow) error {
		wf.NewBranch().OnRollback(func(*dtmcli.BranchBarrier) error {
			return s.step(wf, "outUndo", s.pay(s.source))
		})
		if err := s.step(wf, "out", s.pay(s.source)); err != nil {
			return err
		}
		return s.step(wf.NewBranch(), second, s.pay(s.target))
	}
}

func tccFlow(second string) flow {
	return func(s *stage, wf *workflow.Workflow) error {
		phase2 := func(operation, account string) workflow.WfPhase2Func {
			return func(*dtmcli.BranchBarrier) error { return s.step(wf, operation, s.pay(account)) }
		}
		wf.NewBranch().OnCommit(phase2("spend", s.source)).OnRollback(phase2("unhold", s.source))
		if err := s.step(wf, "hold", s.pay(s.source)); err != nil {
			return err
		}
		wf.NewBranch().OnCommit(phase2("in", s.target)).OnRollback(phase2("nothing", s.target))
		return s.step(wf, second, s.pay(s.target))
	}
}

func xaFlow(second business) flow {
	return func(s *stage, wf *workflow.Workflow) error {
		branch := func(work business, account string) error {
			_, err := wf.NewBranch().DoXa(s.bank.conf, func(db *sql.DB) ([]byte, error) {
				return nil, work(db, s.pay(account))
			})
			return err
		}
		if err := branch(set("balance = balance - ?"), s.source); err != nil {
			return err
		}
		return branch(second, s.target)
	}
}

var errBroken = errors.New("the database is down")

// brokenFlow breaks at its first run, between a recorded step and the next one.
func brokenFlow(s *stage, wf *workflow.Workflow) error {
	receipt, err := wf.NewBranch().Do(func(barrier *dtmcli.BranchBarrier) ([]byte, error) {
		s.bank.note(s.gid, "out")
		return []byte("receipt"), barrier.CallWithDB(s.bank.db, s.local)
	})
	if err != nil {
		return err
	}
	if string(receipt) != "receipt" {
		return fmt.Errorf("the first step's result is %q", receipt)
	}
	if s.runs.Load() == 1 {
		return errBroken
	}
	return s.step(wf.NewBranch(), "in", s.pay(s.target))
}
