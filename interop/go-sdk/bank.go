package main

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dtm-labs/client/dtmcli"
	_ "github.com/go-sql-driver/mysql"
)

// toldHeader is a header that a transaction may have the server send with each branch call.
const toldHeader = "x-told"

// order is every branch's payload.
type order struct {
	Account string `json:"account"`
	Amount  int64  `json:"amount"`
}

// call is a branch call as the SDK sees it, whichever way it came.
type call interface {
	barrier() (*dtmcli.BranchBarrier, error)
	// nested makes a TCC branch below the one that is called.
	nested(o order, try, confirm, cancel string) error
	xa(conf dtmcli.DBConf, business func(*sql.DB) error) error
	header(name string) string
}

// business is what an operation does in its local transaction.
type business func(db dtmcli.DB, o order) error

type operation func(b *bank, c call, o order) error

// operations have the names that the services in other languages give them.
var operations = map[string]operation{
	"out":     once(set("balance = balance - ?")),
	"outUndo": once(set("balance = balance + ?")),
	"in":      once(set("balance = balance + ?")),
	"inUndo":  once(set("balance = balance - ?")),
	"hold":    once(set("held = held + ?")),
	"unhold":  once(set("held = held - ?")),
	"spend":   once(set("balance = balance - ?, held = held - ?")),
	"nothing": once(func(dtmcli.DB, order) error { return nil }),
	"refuse":  once(refuse),
	"busy":    once(func(dtmcli.DB, order) error { return dtmcli.ErrOngoing }),
	"slowOut": func(b *bank, c call, o order) error {
		time.Sleep(time.Second)
		return once(set("balance = balance - ?"))(b, c, o)
	},
	"xaOut":    prepared(set("balance = balance - ?")),
	"xaIn":     prepared(set("balance = balance + ?")),
	"xaRefuse": prepared(refuse),
	"nested": func(_ *bank, c call, o order) error {
		return c.nested(o, "nothing", "in", "nothing")
	},
	"query": func(b *bank, c call, _ order) error {
		barrier, err := c.barrier()
		if err != nil {
			return err
		}
		return barrier.QueryPrepared(b.db)
	},
}

func set(how string) business {
	return func(db dtmcli.DB, o order) error {
		var args []any
		for range strings.Count(how, "?") {
			args = append(args, o.Amount)
		}
		_, err := db.Exec("update account set "+how+" where name = ?", append(args, o.Account)...)
		return err
	}
}

func refuse(dtmcli.DB, order) error {
	return fmt.Errorf("the account is closed: %w", dtmcli.ErrFailure)
}

// once does it behind the barrier.
func once(work business) operation {
	return func(b *bank, c call, o order) error {
		barrier, err := c.barrier()
		if err != nil {
			return err
		}
		return barrier.CallWithDB(b.db, func(tx *sql.Tx) error { return work(tx, o) })
	}
}

// prepared leaves it prepared; the same operation is called again to commit it or roll it back.
func prepared(work business) operation {
	return func(b *bank, c call, o order) error {
		return c.xa(b.conf, func(db *sql.DB) error { return work(db, o) })
	}
}

type bank struct {
	db   *sql.DB
	conf dtmcli.DBConf
	mu   sync.Mutex
	done map[string][]string
}

func openBank(address string) (*bank, error) {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseInt(portText, 10, 64)
	if err != nil {
		return nil, err
	}
	conf := dtmcli.DBConf{Driver: dtmcli.DBTypeMysql, Host: host, Port: port, User: "root", Db: "dtm_barrier"}
	db, err := sql.Open("mysql", "root@tcp("+address+")/dtm_barrier")
	return &bank{db: db, conf: conf, done: map[string][]string{}}, err
}

// run does what a branch call asks for.
func (b *bank) run(name string, c call, payload []byte) error {
	operate, ok := operations[name]
	if !ok {
		return fmt.Errorf("no operation %q", name)
	}
	var o order
	// The second phase of XA and the question after a message have none.
	if len(payload) > 0 {
		if err := json.Unmarshal(payload, &o); err != nil {
			return err
		}
	}
	err := operate(b, c, o)
	if barrier, _ := c.barrier(); err == nil && barrier != nil {
		b.note(barrier.Gid, name+c.header(toldHeader))
	}
	return err
}

func (b *bank) note(gid, what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done[gid] = append(b.done[gid], what)
}

// history tells which operations were done for a transaction, in the order in which they ended.
func (b *bank) history(gid string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.done[gid], " ")
}

func (b *bank) open(name string, balance int64) error {
	_, err := b.db.Exec("insert into account (name, balance) values (?, ?)", name, balance)
	return err
}

func (b *bank) account(name string) (balance, held int64, err error) {
	err = b.db.QueryRow("select balance, held from account where name = ?", name).Scan(&balance, &held)
	return balance, held, err
}
