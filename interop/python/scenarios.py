"""Every mode that DTM's Python SDK has, each with accounts and a gid of its own."""

import time

import requests
from dtmcli import barrier, msg, saga, tcc, utils

START = 1000
SUM = 30


class Stage:
    def __init__(self, bank, dtm, name):
        self.bank, self.dtm = bank, dtm
        self.gid = utils.gen_gid(dtm)
        self.source, self.target = "py-from-" + name, "py-into-" + name
        bank.open(self.source, START)
        bank.open(self.target, START)

    def at(self, operation):
        return self.bank.url + "/" + operation

    def pay(self, account):
        return {"account": account, "amount": SUM}

    def status(self):
        answer = requests.get(self.dtm + "/query", params={"gid": self.gid}).json()
        return (answer.get("transaction") or {}).get("status")

    def ends(self, status, moved):
        """Waits for the transaction's end and looks at the accounts then."""
        deadline = time.time() + 30
        while self.status() != status:
            assert time.time() < deadline, "%s is %s, not %s" % (self.gid, self.status(), status)
            time.sleep(0.02)
        want = ((START - moved, 0), (START + moved, 0))
        got = (self.bank.account(self.source), self.bank.account(self.target))
        assert got == want, "the accounts are %s, not %s" % (got, want)


def saga_done(s):
    (saga.Saga(s.dtm, s.gid)
        .add(s.pay(s.source), s.at("out"), s.at("outUndo"))
        .add(s.pay(s.target), s.at("in"), s.at("inUndo"))
        .submit())
    s.ends("succeed", SUM)


def saga_rolled_back(s):
    (saga.Saga(s.dtm, s.gid)
        .add(s.pay(s.source), s.at("out"), s.at("outUndo"))
        .add(s.pay(s.target), s.at("refuse"), s.at("inUndo"))
        .submit())
    s.ends("failed", 0)


def saga_waited_for(s):
    one = saga.Saga(s.dtm, s.gid).add(s.pay(s.source), s.at("refuse"), s.at("outUndo"))
    one.trans_base.wait_result = True
    try:
        one.submit()
    except utils.DTMFailureError:
        s.ends("failed", 0)
        return
    raise AssertionError("a saga that failed was answered as one that succeeded")


def tcc_confirmed(s):
    def business(t):
        t.call_branch(s.pay(s.source), s.at("hold"), s.at("spend"), s.at("unhold"))
        # The second branch opens a third one below itself.
        t.call_branch(s.pay(s.target), s.at("nested"), s.at("nothing"), s.at("nothing"))

    assert tcc.tcc_global_transaction(s.dtm, s.gid, business) == s.gid
    s.ends("succeed", SUM)


def tcc_cancelled(s):
    def business(t):
        t.call_branch(s.pay(s.source), s.at("hold"), s.at("spend"), s.at("unhold"))
        t.call_branch(s.pay(s.target), s.at("refuse"), s.at("in"), s.at("outUndo"))

    assert tcc.tcc_global_transaction(s.dtm, s.gid, business) == ""
    s.ends("failed", 0)


def message(s):
    def local(cursor):
        cursor.execute("update account set balance = balance - %s where name = %s", (SUM, s.source))

    with s.bank.cursor() as cursor:
        msg.Msg(s.dtm, s.gid).add(s.pay(s.target), s.at("in")).do_and_submit_db(s.at("query"), cursor, local)
    s.ends("succeed", SUM)


def prepared(s):
    one = msg.Msg(s.dtm, s.gid).add(s.pay(s.target), s.at("in"))
    one.trans_base.timeout_to_fail = 1
    one.trans_base.retry_interval = 1
    one.prepare(s.at("query"))


def message_whose_sender_died(s):
    """The local transaction is committed, the submit never comes: the server asks and delivers."""
    prepared(s)
    with s.bank.cursor() as cursor:
        own = barrier.BranchBarrier("msg", s.gid, "00", "msg")
        own.call(cursor, lambda cursor: cursor.execute(
            "update account set balance = balance - %s where name = %s", (SUM, s.source)))
    s.ends("succeed", SUM)


def message_never_sent(s):
    """The local transaction never runs: the server asks, and it never can from then on."""
    prepared(s)
    s.ends("failed", 0)


def message_called_off(s):
    def local(_):
        raise utils.DTMFailureError("changed my mind")

    try:
        with s.bank.cursor() as cursor:
            msg.Msg(s.dtm, s.gid).add(s.pay(s.target), s.at("in")).do_and_submit_db(s.at("query"), cursor, local)
    except utils.DTMFailureError:
        pass
    s.ends("failed", 0)


def refused(s):
    one = saga.Saga(s.dtm, s.gid).add(s.pay(s.source), s.at("nothing"), s.at("nothing"))
    one.submit()
    s.ends("succeed", 0)
    try:
        one.submit()
    except utils.DTMFailureError:
        return
    raise AssertionError("what has ended was accepted again")


ALL = [
    saga_done,
    saga_rolled_back,
    saga_waited_for,
    tcc_confirmed,
    tcc_cancelled,
    message,
    message_whose_sender_died,
    message_never_sent,
    message_called_off,
    refused,
]


def play(bank, dtm):
    """Plays all; returns how many went wrong."""
    failed = 0
    for scenario in ALL:
        name = scenario.__name__
        try:
            scenario(Stage(bank, dtm, name))
            print("ok     ", name.replace("_", " "), flush=True)
        except Exception as error:
            failed += 1
            print("FAILED ", name.replace("_", " "), "-", repr(error), flush=True)
    print("interop with dtmcli for Python: %d of %d ok" % (len(ALL) - failed, len(ALL)), flush=True)
    return failed
