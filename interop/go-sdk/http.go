package main

import (
	"database/sql"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/dtm-labs/client/dtmcli"
	"github.com/dtm-labs/client/workflow"
	"github.com/go-resty/resty/v2"
)

// overHTTP is the package dtmcli, for a server and a bank by their URLs.
type overHTTP struct{ dtm, bank string }

func (h *overHTTP) name() string { return "http" }

func (h *overHTTP) newGid() string { return dtmcli.MustGenGid(h.dtm) }

func (h *overHTTP) at(operation string) string { return h.bank + "/" + operation }

// isFailure looks for the word: the package hands the server's answer on as a text.
func (h *overHTTP) isFailure(err error) bool {
	return err != nil && strings.Contains(err.Error(), dtmcli.ResultFailure)
}

func (h *overHTTP) saga(gid string, custom func(*dtmcli.Saga), steps ...step) error {
	saga := dtmcli.NewSaga(h.dtm, gid)
	for _, one := range steps {
		saga.Add(h.at(one.action), h.at(one.undo), one.order)
	}
	custom(saga)
	return saga.Submit()
}

func (h *overHTTP) message(gid string, custom func(*dtmcli.Msg), to string, o order) message {
	msg := dtmcli.NewMsg(h.dtm, gid)
	if topic, ok := strings.CutPrefix(to, topicPrefix); ok {
		msg.AddTopic(topic, o)
	} else {
		msg.Add(h.at(to), o)
	}
	custom(msg)
	return msg
}

// subscribe asks the server itself: the package has no call for it.
func (h *overHTTP) subscribe(topic, url string) error {
	query := map[string]string{"topic": topic, "url": url}
	answer, err := dtmcli.GetRestyClient().R().SetQueryParams(query).Get(h.dtm + "/subscribe")
	if err != nil {
		return err
	}
	return dtmcli.HTTPResp2DtmError(answer)
}

func (h *overHTTP) tcc(gid string, business func(tccBranch) error) error {
	wait := func(tcc *dtmcli.Tcc) { tcc.WaitResult = true }
	return dtmcli.TccGlobalTransaction2(h.dtm, gid, wait, func(tcc *dtmcli.Tcc) (*resty.Response, error) {
		return nil, business(func(o order, try, confirm, cancel string) error {
			_, err := tcc.CallBranch(o, h.at(try), h.at(confirm), h.at(cancel))
			return err
		})
	})
}

func (h *overHTTP) xa(gid string, business func(xaBranch) error) error {
	wait := func(xa *dtmcli.Xa) { xa.WaitResult = true }
	return dtmcli.XaGlobalTransaction2(h.dtm, gid, wait, func(xa *dtmcli.Xa) (*resty.Response, error) {
		return nil, business(func(o order, operation string) error {
			_, err := xa.CallBranch(o, h.at(operation))
			return err
		})
	})
}

func (h *overHTTP) step(wf *workflow.Workflow, operation string, o order) error {
	_, err := wf.NewRequest().SetBody(o).Post(h.at(operation))
	return err
}

// serveHTTP serves the bank, and the workflows that the server resumes; returns the URL.
func serveHTTP(b *bank) (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	bank := "http://" + listener.Addr().String()
	answer := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			if name := r.URL.Path[1:]; name == "workflow" {
				err = workflow.ExecuteByQS(r.URL.Query(), body)
			} else {
				err = b.run(name, &httpCall{r, bank}, body)
			}
		}
		code, result := http.StatusOK, any(dtmcli.MapSuccess)
		if err != nil {
			code, result = dtmcli.Result2HttpJSON(err)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(result)
	}
	go func() { _ = http.Serve(listener, http.HandlerFunc(answer)) }()
	return bank, nil
}

// httpCall is a branch call over HTTP.
type httpCall struct {
	request *http.Request
	bank    string
}

func (c *httpCall) query() url.Values { return c.request.URL.Query() }

func (c *httpCall) header(name string) string { return c.request.Header.Get(name) }

func (c *httpCall) barrier() (*dtmcli.BranchBarrier, error) {
	return dtmcli.BarrierFromQuery(c.query())
}

func (c *httpCall) nested(o order, try, confirm, cancel string) error {
	tcc, err := dtmcli.TccFromQuery(c.query())
	if err == nil {
		_, err = tcc.CallBranch(o, c.bank+"/"+try, c.bank+"/"+confirm, c.bank+"/"+cancel)
	}
	return err
}

func (c *httpCall) xa(conf dtmcli.DBConf, business func(*sql.DB) error) error {
	return dtmcli.XaLocalTransaction(c.query(), conf, func(db *sql.DB, _ *dtmcli.Xa) error {
		return business(db)
	})
}
