package main

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dtm-labs/client/dtmcli"
)

// endMax is the longest that a transaction may take to its end.
const endMax = 30 * time.Second

// stage is what a scenario works with: a package of the SDK, the bank, accounts and a gid of its own.
type stage struct {
	sdk
	bank           *bank
	dtm            string
	gid            string
	source, target string
	// runs counts how often the scenario's workflow was begun.
	runs atomic.Int32
}

// play counts the scenarios.
type play struct {
	bank           *bank
	dtm            string
	played, failed int
}

// all plays all scenarios at once over one protocol, and says how each of them went.
func (p *play) all(over sdk) error {
	stages := make([]*stage, len(scenarios))
	for i, one := range scenarios {
		var err error
		if stages[i], err = p.stage(over, one.flow); err != nil {
			return err
		}
	}
	results := make([]error, len(scenarios))
	var wait sync.WaitGroup
	for i, one := range scenarios {
		wait.Go(func() { results[i] = one.run(stages[i]) })
	}
	wait.Wait()
	for i, err := range results {
		p.played++
		how, why := "ok     ", ""
		if err != nil {
			p.failed++
			how, why = "FAILED ", " - "+err.Error()
		}
		fmt.Println(how, over.name(), scenarios[i].name+why)
	}
	return nil
}

// stage opens the accounts, and registers the workflow: the SDK's table of workflows must not
// change any more when the first of them runs.
func (p *play) stage(over sdk, do flow) (*stage, error) {
	s := &stage{sdk: over, bank: p.bank, dtm: p.dtm, gid: over.newGid()}
	s.source, s.target = "from-"+s.gid, "into-"+s.gid
	err := errors.Join(s.bank.open(s.source, start), s.bank.open(s.target, start))
	if err == nil && do != nil {
		err = s.register(do)
	}
	return s, err
}

// ends passes an error on, or waits for the transaction's end and looks at the accounts then.
func (s *stage) ends(err error, status string, moved int64) error {
	deadline := time.Now().Add(endMax)
	for got := ""; err == nil && got != status; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is %s, not %s", s.gid, got, status)
		}
		got, err = s.status()
	}
	if err != nil {
		return err
	}
	for account, want := range map[string]int64{s.source: start - moved, s.target: start + moved} {
		balance, held, err := s.bank.account(account)
		if err != nil {
			return err
		}
		if balance != want || held != 0 {
			return fmt.Errorf("%s has %d (%d held), not %d", account, balance, held, want)
		}
	}
	return nil
}

// refused checks that the SDK says so, and that nothing is left of it.
func (s *stage) refused(err error) error {
	if !s.isFailure(err) {
		return fmt.Errorf("not refused: %v", err)
	}
	return s.ends(nil, "failed", 0)
}

// did passes an error on, or checks which operations were done, in which order.
func (s *stage) did(err error, want string) error {
	if got := s.bank.history(s.gid); err == nil && got != want {
		return fmt.Errorf("the bank did %q, not %q", got, want)
	}
	return err
}

// status is what the server knows of the transaction; the SDK has no call for it.
func (s *stage) status() (string, error) {
	var answer struct {
		Transaction struct {
			Status string `json:"status"`
		} `json:"transaction"`
	}
	request := dtmcli.GetRestyClient().R().SetResult(&answer).SetQueryParam("gid", s.gid)
	_, err := request.Get(s.dtm + "/query")
	return answer.Transaction.Status, err
}
