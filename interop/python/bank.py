"""A service with a database whose every operation runs behind the barrier of DTM's Python SDK."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pymysql
from dtmcli import barrier, tcc, utils

# What each operation does to an account; the parameters are amount and name.
CHANGES = {
    "out": "balance = balance - %s",
    "outUndo": "balance = balance + %s",
    "in": "balance = balance + %s",
    "inUndo": "balance = balance - %s",
    "hold": "held = held + %s",
    "unhold": "held = held - %s",
    "spend": "balance = balance - %s, held = held - %s",
    "nothing": None,
}


class Bank:
    def __init__(self, db, dtm):
        self.db = db
        self.dtm = dtm
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler(self))
        self.url = "http://127.0.0.1:%d" % self.server.server_port
        Thread(target=self.server.serve_forever, daemon=True).start()

    def cursor(self):
        host, port = self.db.rsplit(":", 1)
        connection = pymysql.connect(host=host, port=int(port), user="root", database="dtm_barrier")
        return barrier.AutoCursor(connection.cursor())

    def account(self, name):
        with self.cursor() as cursor:
            cursor.execute("select balance, held from account where name = %s", (name,))
            return cursor.fetchone()

    def open(self, name, balance):
        with self.cursor() as cursor:
            cursor.execute("insert into account (name, balance) values (%s, %s)", (name, balance))
            cursor.connection.commit()

    def run(self, operation, call, order):
        """Does what a branch call asks for; raises DTMFailureError where it is refused."""
        branch = barrier.BranchBarrier(call["trans_type"], call["gid"], call["branch_id"], call["op"])
        with self.cursor() as cursor:
            if operation == "query":
                branch.query_prepared(cursor)
                return
            if operation == "nested":
                self.nested(call, order)
                return
            branch.call(cursor, lambda cursor: change(cursor, operation, order))

    def nested(self, call, order):
        """A branch that opens one of its own in the same transaction."""
        inner = tcc.tcc_from_req(self.dtm, call["gid"], call["branch_id"])
        own = {"account": order["account"], "amount": order["amount"]}
        inner.call_branch(own, self.url + "/nothing", self.url + "/in", self.url + "/nothing")


def change(cursor, operation, order):
    if operation == "refuse":
        raise utils.DTMFailureError("the account is closed")
    how = CHANGES[operation]
    if how is not None:
        amounts = (order["amount"],) * how.count("%s")
        cursor.execute("update account set " + how + " where name = %s", (*amounts, order["account"]))


def handler(bank):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.answer({})

        def do_POST(self):
            length = int(self.headers.get("Content-Length") or 0)
            self.answer(json.loads(self.rfile.read(length) or b"{}"))

        def answer(self, order):
            url = urlsplit(self.path)
            call = {name: values[0] for name, values in parse_qs(url.query).items()}
            status, result = 200, "SUCCESS"
            try:
                bank.run(url.path.strip("/"), call, order)
            except utils.DTMFailureError:
                status, result = 409, "FAILURE"
            except Exception as error:
                status, result = 500, repr(error)
            body = json.dumps({"dtm_result": result}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    return Handler
