package main

import (
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/dtm-labs/client/dtmcli"
	"github.com/dtm-labs/client/workflow"
)

const (
	start = 1000
	sum   = 30
	// topicPrefix is before the name of a message's target if that is a topic.
	topicPrefix = "topic "
)

// sdk is one of the SDK's two packages for transactions, so that a scenario is written once.
type sdk interface {
	name() string
	newGid() string
	// at is where an operation of the bank is.
	at(operation string) string
	// isFailure tells whether the package's error says that it was refused or rolled back.
	isFailure(err error) bool
	saga(gid string, custom func(*dtmcli.Saga), steps ...step) error
	message(gid string, custom func(*dtmcli.Msg), to string, o order) message
	subscribe(topic, url string) error
	tcc(gid string, business func(tccBranch) error) error
	xa(gid string, business func(xaBranch) error) error
	// step calls an operation as a workflow's current branch.
	step(wf *workflow.Workflow, operation string, o order) error
}

type step struct {
	action, undo string
	order        order
}

type message interface {
	Prepare(query string) error
	Submit() error
	DoAndSubmitDB(query string, db *sql.DB, local dtmcli.BarrierBusiFunc) error
}

type tccBranch func(o order, try, confirm, cancel string) error

type xaBranch func(o order, operation string) error

type scenario struct {
	name string
	run  func(*stage) error
	// flow is what the scenario's workflow does, if it has one.
	flow flow
}

var scenarios = []scenario{
	{"saga done", sagaDone, nil},
	{"saga rolled back", sagaRolledBack, nil},
	{"saga waited for", sagaWaitedFor, nil},
	{"saga with branch headers", sagaWithHeaders, nil},
	{"saga timed out", sagaTimedOut, nil},
	{"concurrent saga in order", concurrentSaga, nil},
	{"nested tcc confirmed", tccConfirmed, nil},
	{"tcc cancelled", tccCancelled, nil},
	{"message", messageSent, nil},
	{"message to a topic", messageToTopic, nil},
	{"message with delay", messageDelayed, nil},
	{"message whose sender died", messageWhoseSenderDied, nil},
	{"message never sent", messageNeverSent, nil},
	{"message called off", messageCalledOff(dtmcli.ErrFailure), nil},
	{"message called off by a fault", messageCalledOff(errBroken), nil},
	{"xa committed", xaCommitted, nil},
	{"xa rolled back", xaRolledBack, nil},
	{"refused twice", refusedTwice, nil},
	{"workflow done", workflowDone, sagaFlow("in")},
	{"workflow rolled back", workflowRolledBack, sagaFlow("refuse")},
	{"workflow with tcc confirmed", workflowDone, tccFlow("nothing")},
	{"workflow with tcc cancelled", workflowRolledBack, tccFlow("refuse")},
	{"workflow with xa committed", workflowDone, xaFlow(set("balance = balance + ?"))},
	{"workflow with xa rolled back", workflowRolledBack, xaFlow(refuse)},
	{"workflow resumed after a failure", workflowResumed, brokenFlow},
}

func (s *stage) take(action string) step { return step{action, "outUndo", s.pay(s.source)} }

func (s *stage) give(action string) step { return step{action, "inUndo", s.pay(s.target)} }

func (s *stage) pay(account string) order { return order{account, sum} }

func plainSaga(*dtmcli.Saga) {}

func plainMessage(*dtmcli.Msg) {}

func sagaDone(s *stage) error {
	err := s.saga(s.gid, plainSaga, s.take("out"), s.give("in"))
	return s.ends(err, "succeed", sum)
}

func sagaRolledBack(s *stage) error {
	err := s.saga(s.gid, plainSaga, s.take("out"), s.give("refuse"))
	return s.ends(err, "failed", 0)
}

func sagaWaitedFor(s *stage) error {
	wait := func(saga *dtmcli.Saga) { saga.WaitResult = true }
	return s.refused(s.saga(s.gid, wait, s.take("out"), s.give("refuse")))
}

func sagaWithHeaders(s *stage) error {
	tell := func(saga *dtmcli.Saga) { saga.BranchHeaders = map[string]string{toldHeader: "-told"} }
	err := s.saga(s.gid, tell, s.take("out"), s.give("in"))
	return s.did(s.ends(err, "succeed", sum), "out-told in-told")
}

func sagaTimedOut(s *stage) error {
	soon := func(saga *dtmcli.Saga) { saga.TimeoutToFail, saga.RetryInterval = 2, 1 }
	err := s.saga(s.gid, soon, s.take("out"), s.give("busy"))
	return s.ends(err, "failed", 0)
}

// concurrentSaga has a step that waits for a slow one, and a third that waits for nobody.
func concurrentSaga(s *stage) error {
	order := func(saga *dtmcli.Saga) { saga.SetConcurrent().AddBranchOrder(1, []int{0}) }
	err := s.saga(s.gid, order, s.take("slowOut"), s.give("in"), s.give("nothing"))
	return s.did(s.ends(err, "succeed", sum), "nothing slowOut in")
}

func tccConfirmed(s *stage) error {
	err := s.tcc(s.gid, func(branch tccBranch) error {
		if err := branch(s.pay(s.source), "hold", "spend", "unhold"); err != nil {
			return err
		}
		// The second branch opens a third one below itself.
		return branch(s.pay(s.target), "nested", "nothing", "nothing")
	})
	return s.ends(err, "succeed", sum)
}

func tccCancelled(s *stage) error {
	return s.refused(s.tcc(s.gid, func(branch tccBranch) error {
		if err := branch(s.pay(s.source), "hold", "spend", "unhold"); err != nil {
			return err
		}
		return branch(s.pay(s.target), "refuse", "in", "outUndo")
	}))
}

// local is the local transaction that a message goes with.
func (s *stage) local(tx *sql.Tx) error {
	return set("balance = balance - ?")(tx, s.pay(s.source))
}

func (s *stage) send(custom func(*dtmcli.Msg), to string) error {
	msg := s.message(s.gid, custom, to, s.pay(s.target))
	return msg.DoAndSubmitDB(s.at("query"), s.bank.db, s.local)
}

func messageSent(s *stage) error {
	return s.ends(s.send(plainMessage, "in"), "succeed", sum)
}

func messageToTopic(s *stage) error {
	if err := s.subscribe(s.gid, s.at("in")); err != nil {
		return err
	}
	return s.ends(s.send(plainMessage, topicPrefix+s.gid), "succeed", sum)
}

func messageDelayed(s *stage) error {
	later := func(msg *dtmcli.Msg) { msg.SetDelay(2) }
	begun := time.Now()
	err := s.ends(s.send(later, "in"), "succeed", sum)
	if took := time.Since(begun); err == nil && took < 2*time.Second {
		return fmt.Errorf("it was delivered after %s", took)
	}
	return err
}

// prepared tells the server of a message that is not submitted.
func (s *stage) prepared() error {
	soon := func(msg *dtmcli.Msg) { msg.TimeoutToFail, msg.RetryInterval = 2, 1 }
	return s.message(s.gid, soon, "in", s.pay(s.target)).Prepare(s.at("query"))
}

// commit is the sender's local transaction with its barrier row.
func (s *stage) commit() error {
	own, err := dtmcli.BarrierFrom("msg", s.gid, "00", "msg")
	if err != nil {
		return err
	}
	return own.CallWithDB(s.bank.db, s.local)
}

// messageWhoseSenderDied is committed and never submitted: the server asks and delivers.
func messageWhoseSenderDied(s *stage) error {
	err := s.prepared()
	if err == nil {
		err = s.commit()
	}
	return s.ends(err, "succeed", sum)
}

// messageNeverSent has no local transaction when the server asks, and cannot have one later.
func messageNeverSent(s *stage) error {
	if err := s.ends(s.prepared(), "failed", 0); err != nil {
		return err
	}
	if err := s.commit(); !errors.Is(err, dtmcli.ErrDuplicated) {
		return fmt.Errorf("committed after the server was told that it never is: %v", err)
	}
	return s.ends(nil, "failed", 0)
}

// messageCalledOff has a local transaction that fails; unless that is a refusal, the SDK asks the
// bank what has become of it.
func messageCalledOff(why error) func(*stage) error {
	return func(s *stage) error {
		msg := s.message(s.gid, plainMessage, "in", s.pay(s.target))
		err := msg.DoAndSubmitDB(s.at("query"), s.bank.db, func(tx *sql.Tx) error {
			return errors.Join(s.local(tx), why)
		})
		if !errors.Is(err, why) {
			return fmt.Errorf("not called off: %v", err)
		}
		return s.ends(nil, "failed", 0)
	}
}

func xaCommitted(s *stage) error {
	err := s.xa(s.gid, func(branch xaBranch) error {
		return errors.Join(branch(s.pay(s.source), "xaOut"), branch(s.pay(s.target), "xaIn"))
	})
	return s.ends(err, "succeed", sum)
}

func xaRolledBack(s *stage) error {
	return s.refused(s.xa(s.gid, func(branch xaBranch) error {
		if err := branch(s.pay(s.source), "xaOut"); err != nil {
			return err
		}
		return branch(s.pay(s.target), "xaRefuse")
	}))
}

// refusedTwice submits what has ended once more, which must do nothing and be an error.
func refusedTwice(s *stage) error {
	err := s.saga(s.gid, plainSaga, s.take("out"), s.give("in"))
	if err := s.ends(err, "succeed", sum); err != nil {
		return err
	}
	if err := s.saga(s.gid, plainSaga, s.take("out"), s.give("in")); !s.isFailure(err) {
		return fmt.Errorf("what has ended was accepted again: %v", err)
	}
	return s.did(s.ends(nil, "succeed", sum), "out in")
}
