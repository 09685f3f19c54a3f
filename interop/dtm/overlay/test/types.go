// Laid over test/types.go of DTM when its tests are built: where DTM's tests turn the clock of the
// server in their own process, these turn that of a dtmd with --test-control.
package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/dtm-labs/dtm/client/dtmcli"
	"github.com/dtm-labs/dtm/client/dtmcli/dtmimp"
	"github.com/dtm-labs/dtm/dtmsvr"
	"github.com/dtm-labs/dtm/dtmsvr/config"
	"github.com/dtm-labs/dtm/dtmutil"
	"github.com/dtm-labs/dtm/test/busi"
	"github.com/stretchr/testify/assert"
)

const (
	StatusPrepared  = dtmcli.StatusPrepared
	StatusSubmitted = dtmcli.StatusSubmitted
	StatusSucceed   = dtmcli.StatusSucceed
	StatusFailed    = dtmcli.StatusFailed
	StatusAborting  = dtmcli.StatusAborting

	// cronForward is how many seconds ahead DTM's tests pick what is due.
	cronForward = 180
)

type (
	TransGlobal = dtmsvr.TransGlobal
	TransBranch = dtmsvr.TransBranch
)

var (
	conf = &config.Config
	e2p  = dtmimp.E2P
)

func dbGet() *dtmutil.DB { return dtmutil.DbGet(busi.BusiConf) }

// control calls an endpoint of --test-control, with GET if there is nothing to say; a test cannot go
// on without its answer.
func control(path string, body any, answer any) {
	method, text := http.MethodGet, []byte(nil)
	if body != nil {
		method, text = http.MethodPost, dtmimp.MustMarshal(body)
	}
	request, err := http.NewRequest(method, os.Getenv("SUITE_CONTROL")+"/test/"+path, bytes.NewReader(text))
	e2p(err)
	response, err := http.DefaultClient.Do(request)
	e2p(err)
	defer response.Body.Close()
	text, err = io.ReadAll(response.Body)
	e2p(err)
	if response.StatusCode != http.StatusOK {
		panic(fmt.Sprintf("/test/%s: %s", path, text))
	}
	if answer != nil {
		e2p(json.Unmarshal(text, answer))
	}
}

// setClock moves the server's clock, in seconds: for ages and timeouts, and for what is due.
func setClock(now, cron int) {
	control("clock", map[string]int{"now_forward_ms": now * 1000, "cron_forward_ms": cron * 1000}, nil)
}

// processed waits for the end of a pass over any transaction; returns its gid, or nothing.
func processed(wait time.Duration) string {
	var ended struct{ Gid string }
	control(fmt.Sprintf("processed?wait_ms=%d", wait.Milliseconds()), nil, &ended)
	return ended.Gid
}

func waitTransProcessed(gid string) {
	if ended := processed(10 * time.Second); ended != gid {
		panic(fmt.Sprintf("the pass that ended is one over %q, not %q", ended, gid))
	}
}

func cronTransOnce(t *testing.T, gid string) {
	var picked struct{ Gid string }
	control("cron-once", map[string]bool{"ignore_lease": true}, &picked)
	assert.Equal(t, gid, picked.Gid)
	if gid != "" {
		waitTransProcessed(gid)
	}
}

func cronTransOnceForwardNow(t *testing.T, gid string, seconds int) {
	setClock(seconds, cronForward)
	defer setClock(0, cronForward)
	cronTransOnce(t, gid)
}

func cronTransOnceForwardCron(t *testing.T, gid string, seconds int) {
	submitForwardCron(seconds, func() { cronTransOnce(t, gid) })
}

func submitForwardCron(seconds int, submit func()) {
	setClock(0, seconds)
	defer setClock(0, cronForward)
	submit()
}

func getBeforeBalances(store string) []int {
	return []int{busi.GetBalanceByUID(busi.TransOutUID, store), busi.GetBalanceByUID(busi.TransInUID, store)}
}

func assertSameBalance(t *testing.T, before []int, store string) {
	assert.Equal(t, before, getBeforeBalances(store))
}

func assertNotSameBalance(t *testing.T, before []int, store string) {
	now := getBeforeBalances(store)
	assert.NotEqual(t, before[0], now[0])
	assert.Equal(t, before[0]+before[1], now[0]+now[1])
}
