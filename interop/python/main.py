"""Services and clients on DTM's published Python SDK, against a dtmd and a MariaDB given by address.

    main.py --db HOST:PORT --dtm URL            plays every scenario
    main.py --db HOST:PORT --dtm URL --serve    serves its bank until its input ends
"""

import argparse
import sys

from bank import Bank
from scenarios import play


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--db", required=True, help="host:port of a MySQL that root may use")
    parser.add_argument("--dtm", required=True, help="http://host:port/api/dtmsvr")
    parser.add_argument("--serve", action="store_true")
    args = parser.parse_args()
    bank = Bank(args.db, args.dtm)
    if args.serve:
        print("listening on", bank.url, flush=True)
        sys.stdin.read()
        return 0
    return 1 if play(bank, args.dtm) else 0


sys.exit(main())
